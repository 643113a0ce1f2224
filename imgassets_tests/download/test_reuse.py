"""Tests images whose key changes, and images whose URL leaves the catalogue."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from imgassets.download.partition import collect, plan
from imgassets.download.reuse import reuse_stored_images
from imgassets.manifests import Outcome
from imgassets.storage import mark_removed
from imgassets_tests.download.conftest import Partition, url_row, url_rows
from imgassets_tests.download.failing_storage import failing_writes, is_table
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Server, answer

JPEG = image_bytes()
OTHER = image_bytes(seed=1)
PNG = image_bytes("PNG")
GONE = answer(b"gone", status=404)


def test_a_moved_url_keeps_its_image_even_if_the_shop_no_longer_serves_it(
    partition: Partition, server: Server
) -> None:
    old = server.add("/a.jpg", answer(JPEG))
    (before,) = partition.run(old)
    new = server.add("/b.jpg", answer(OTHER))
    server.add("/a.jpg", answer(b"gone", status=404))

    moved = [replace(row, key=f"moved-{row.key}") for row in url_rows(new, old)]
    partition.download(moved)
    first, second = collect(moved, partition.folder)

    assert (first.outcome, second.outcome) == (Outcome.OK, Outcome.OK)
    assert second.key == moved[1].key
    assert (second.sha256, second.fetched_at) == (before.sha256, before.fetched_at)
    assert partition.files == {f"{moved[0].key}.jpg": OTHER, f"{moved[1].key}.jpg": JPEG}


def test_an_image_that_another_product_lists_too_is_not_requested_again(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", answer(JPEG))
    partition.run(url)
    server.hits.clear()
    both = [url_row("p-0", url), url_row("q-0", url)]
    partition.download(both)
    rows = collect(both, partition.folder)
    assert [row.outcome for row in rows] == [Outcome.OK, Outcome.OK]
    assert not server.hits
    assert partition.files == {"p-0.jpg": JPEG, "q-0.jpg": JPEG}


def test_an_image_whose_url_left_the_catalogue_is_kept(
    partition: Partition, server: Server
) -> None:
    first, second = server.add("/a.jpg", answer(JPEG)), server.add("/b.jpg", answer(OTHER))
    partition.run(first, second)
    for _ in range(2):
        (row,) = partition.run(first)
        assert row.path == "images/p-0.jpg"
    assert partition.files == {"p-0.jpg": JPEG, "p-1.jpg": OTHER}


def test_the_row_of_a_moved_url_has_the_new_catalogue_data(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", answer(PNG, headers={"ETag": '"1"'}))
    (before,) = partition.run_rows([url_row("a", url)])
    moved = replace(url_row("b", url, 3), product_id="q", document_id="e")
    new = url_row("c", server.add("/c.jpg", answer(OTHER)))
    assert plan([moved], partition.folder, 10) == []
    partition.download([moved, new])
    rows = collect([moved, new], partition.folder)
    assert rows[0] == replace(
        before, key="b", position=3, product_id="q", document_id="e", path="images/b.png"
    )
    assert partition.files == {"b.png": PNG, "c.jpg": OTHER}
    assert server.hits == {"/a.jpg": 1, "/c.jpg": 1}


def test_stored_images_are_reused_once(partition: Partition, server: Server) -> None:
    url = server.add("/a.jpg", answer(JPEG))
    partition.run_rows([url_row("a", url)])
    rows = [url_row(key, url) for key in ("a", "b", "c")]
    rows.append(url_row("d", server.url("/new.jpg")))
    assert reuse_stored_images(rows, partition.folder) == 2
    assert reuse_stored_images(rows, partition.folder) == 0
    assert partition.files == {"a.jpg": JPEG, "b.jpg": JPEG, "c.jpg": JPEG}


def test_a_file_that_does_not_match_the_checksum_of_its_row_is_not_reused(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", answer(JPEG))
    partition.run_rows([url_row("a", url)])
    newer = JPEG[:-3] + bytes([JPEG[-3] ^ 1]) + JPEG[-2:]
    server.add("/a.jpg", answer(newer))
    with failing_writes(
        is_table
    ):  # a refresh replaces the file and is killed before it writes the row
        partition.download([url_row("a", url)], refresh=True)
    moved = [url_row("b", url)]

    server.add("/a.jpg", GONE)
    (row,) = partition.run_rows(moved)
    assert (row.outcome, row.path) == (Outcome.HTTP_ERROR, None)
    # No row names the image any more, but it may not be available anywhere else.
    assert partition.files == {"a.jpg": newer}

    server.add("/a.jpg", answer(newer))
    (row,) = partition.run_rows(moved)
    assert row.sha256 == sha256(newer).hexdigest()
    assert partition.files["b.jpg"] == newer


def test_a_truncated_or_removed_file_is_not_reused(partition: Partition, server: Server) -> None:
    urls = [server.add(f"/{n}.jpg", answer(JPEG)) for n in range(2)]
    partition.run(*urls)
    images = partition.folder / "images"
    images.write("p-0.jpg", JPEG[:10])
    mark_removed(partition.folder, ["p-1.jpg"])
    images.remove("p-1.jpg")
    moved = [url_row("a", urls[0]), url_row("b", urls[1])]
    rows = partition.run_rows(moved)
    assert [row.outcome for row in rows] == [Outcome.OK] * 2
    assert server.hits == {"/0.jpg": 2, "/1.jpg": 2}
    assert partition.files == {"a.jpg": JPEG, "b.jpg": JPEG}


def test_files_of_a_key_that_its_row_does_not_name_are_removed_and_others_kept(
    partition: Partition, server: Server
) -> None:
    urls = [server.add("/0.jpg", answer(JPEG)), server.url("/missing.jpg")]
    images = partition.folder / "images"
    for name in ("p-0.png", "p-1.jpg", "p-10.jpg", "elsewhere.jpg"):
        images.write(name, OTHER)
    partition.run(*urls)
    assert partition.files == {"elsewhere.jpg": OTHER, "p-0.jpg": JPEG, "p-10.jpg": OTHER}
