from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imgassets.download.urls import InvalidUrlError, joined, normalise, origin
from imgassets.manifests import Outcome
from imgassets.storage import Folder
from imgassets_tests.download.conftest import Partition
from imgassets_tests.download.pictures import picture
from imgassets_tests.download.server import Server, answer, running

JPEG = picture()


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("http://H.example/a b.jpg", "http://h.example/a%20b.jpg"),
        ("https://h.example", "https://h.example/"),
        ("https://h.example/ä?q=ö#x", "https://h.example/%C3%A4?q=%C3%B6"),
        ("https://mañana.example/x", "https://xn--maana-pta.example/x"),
        ("  https://h.example/%20a%zz ", "https://h.example/%2520a%25zz"),
        ("http://h.example:8080/x?a=1&b=[2]", "http://h.example:8080/x?a=1&b=[2]"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
    ],
)
def test_a_url_is_spelled_as_http_sends_it(written: str, sent: str) -> None:
    assert normalise(written) == sent


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b.jpg", "http://h.example/b.jpg"),
        ("b.jpg", "http://h.example/x/b.jpg"),
        ("//cdn.example/b.jpg", "http://cdn.example/b.jpg"),
        ("https://cdn.example/b c", "https://cdn.example/b%20c"),
        ("/kl\u00c3\u00a4der", "http://h.example/kl%C3%A4der"),
    ],
)
def test_a_redirect_is_resolved(location: str, target: str) -> None:
    assert joined("http://h.example/x/a.jpg", location) == target


@given(st.text(max_size=200) | st.text(max_size=200).map("http://h.example/".__add__))
@example("http://h.example/" + "x" * 4000)
@example("http://h.example/../../etc/passwd")
@example("http://\ud800/")
@example("http://h.example/\ud800")
@example("http://h\r\nX: y/")
@example("http://h.example/\r\nX-Injected: y")
def test_any_text_is_a_sendable_url_or_refused(text: str) -> None:
    try:
        url = normalise(text)
    except InvalidUrlError:
        return
    assert url.isascii()
    assert url.isprintable()
    assert " " not in url
    assert urlsplit(url).scheme in {"http", "https"}
    assert normalise(url) == url
    assert url.startswith(origin(url) + "/")


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    with running() as server:
        server.otherwise = answer(JPEG)
        yield server


PATHS = st.lists(
    st.text(max_size=60)
    | st.text(alphabet="./%?&=#\\ :;*|\"'<>~", max_size=30)
    | st.integers(3000, 4000).map("x".__mul__),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("client", ["curl", "requests"])
@settings(max_examples=30, deadline=None)
@given(paths=PATHS)
@example(paths=["../../etc/passwd", "..", "%2e%2e/%2e%2e/x", "a?b=../../c", "x" * 4000, "\ud800"])
def test_any_path_ends_as_one_row_and_at_most_one_file_of_its_key(
    served: Server, client: str, paths: list[str]
) -> None:
    with TemporaryDirectory() as folder:
        partition = Partition(Folder(f"{folder}/raw_images")).with_settings(client=client)
        # Parquet knows no lone surrogates, and no source of rows yields them.
        urls = [served.url("/" + path.encode(errors="replace").decode()) for path in paths]
        rows = partition.run(*urls)
        assert [row.key for row in rows] == [f"p-{n}" for n in range(len(urls))]
        assert {row.outcome for row in rows} <= {Outcome.OK, Outcome.INVALID_URL}
        saved = [f"{row.key}.jpg" for row in rows if row.outcome is Outcome.OK]
        assert sorted(partition.files) == sorted(saved)
        found = {
            str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()
        }
        assert found == {
            "raw_images/manifest.parquet",
            *(f"raw_images/images/{name}" for name in saved),
        }
