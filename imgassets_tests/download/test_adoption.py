"""Pictures whose key changes, and pictures whose URL leaves the catalogue."""

from __future__ import annotations

from dataclasses import replace

from imgassets.download.partition import collect
from imgassets.manifests import Outcome
from imgassets_tests.download.conftest import Partition, url_row, url_rows
from imgassets_tests.download.pictures import picture
from imgassets_tests.download.server import Server, answer

JPEG = picture()
OTHER = picture(seed=1)


def test_a_url_that_moved_keeps_its_picture_though_the_shop_has_it_no_more(
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


def test_a_picture_that_another_product_lists_now_is_not_asked_for_again(
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


def test_a_picture_whose_url_left_the_catalogue_stays(partition: Partition, server: Server) -> None:
    first, second = server.add("/a.jpg", answer(JPEG)), server.add("/b.jpg", answer(OTHER))
    partition.run(first, second)
    for _ in range(2):
        (row,) = partition.run(first)
        assert row.path == "images/p-0.jpg"
    assert partition.files == {"p-0.jpg": JPEG, "p-1.jpg": OTHER}
