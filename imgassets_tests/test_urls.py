"""Normalise URLs, resolve redirects, and reject what is not a valid http or https URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imgassets.errors import InvalidUrlError
from imgassets.manifests import Outcome
from imgassets.storage import Storage
from imgassets.urls import MAX_LENGTH, normalise, origin, resolve
from imgassets_tests.download.conftest import Partition, path_of
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Server, answer, running

JPEG = image_bytes()


@pytest.mark.parametrize(
    ("raw", "normalised"),
    [
        ("http://H.example/a b.jpg", "http://h.example/a%20b.jpg"),
        ("https://h.example", "https://h.example/"),
        ("https://h.example/ä?q=ö#x", "https://h.example/%C3%A4?q=%C3%B6"),
        ("https://mañana.example/x", "https://xn--maana-pta.example/x"),
        ("  https://h.example/%20a%zz ", "https://h.example/%20a%zz"),
        ("http://h.example:8080/x?a=1&b=[2]", "http://h.example:8080/x?a=1&b=[2]"),
        ("http://[::1]:80/x", "http://[::1]/x"),
        ("https://[2606:4700::ABCD]/x", "https://[2606:4700::abcd]/x"),
        ("HTTPS://H.Example/A?B=C", "https://h.example/A?B=C"),
        ("https://h.example?w=9", "https://h.example/?w=9"),
        ("https://h.example:443/x", "https://h.example/x"),
        ("https://h.example:80/x", "https://h.example:80/x"),
        ("https://h.example:/x", "https://h.example/x"),
        ("https://h.example:0/x", "https://h.example:0/x"),
        ("https://MAÑANA.example:8443/x", "https://xn--maana-pta.example:8443/x"),
        ("https://\ufb01ne\u3002example/x", "https://fine.example/x"),  # ligature, full stop
        ("https://h.example/x;v=1?", "https://h.example/x;v=1?"),
        ("https://h.example/a%2Fb%41", "https://h.example/a%2Fb%41"),
        ("https://h.example./x", "https://h.example./x"),
        ("https://my_shop-1.example/x", "https://my_shop-1.example/x"),
        ("//h.example/x", "https://h.example/x"),
        ("  //h.example:80/x", "https://h.example:80/x"),
        ("https:///h.example/x", "https://h.example/x"),
        ("https:/h.example", "https://h.example/"),
        ("HTTPS:\\\\H.example\\a\\b", "https://h.example/a/b"),
        ("https://h\u00ad.example/x", "https://h.example/x"),
        ("https://0x1010101/x", "https://1.1.1.1/x"),
        ("https://\uff11.1/x", "https://1.0.0.1/x"),
        ("https://999.1.1.1/x", "https://999.1.1.1/x"),
        ("https://[2606:4700:0:0::ABCD]/x", "https://[2606:4700::abcd]/x"),
    ],
)
def test_a_url_is_normalised(raw: str, normalised: str) -> None:
    assert normalise(raw) == normalised


HOST_OR_PORT = "the host or the port of the URL is not valid"
SCHEME = "the URL does not start with http:// or https://"
CREDENTIALS = "the URL contains credentials; set them in download.auth instead"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("", SCHEME),
        ("zara.jpg", SCHEME),
        ("ftp://h.example/x", SCHEME),
        ("httpx://h.example/x", SCHEME),
        ("http://", "the URL has no host"),
        ("https:///", "the URL has no host"),
        ("www.h.example/x.jpg", SCHEME),
        ("h.example:80/x.jpg", SCHEME),
        ("data:image/png;base64,AAAA", SCHEME),
        ("/x.jpg", SCHEME),
        ("\\\\h.example\\x.jpg", SCHEME),
        ("https:/?x", "the URL has no host"),
        ("https://:8443/x", "the URL has no host"),
        ("https://user:word@h.example/x", CREDENTIALS),
        ("https://user@h.example/x", CREDENTIALS),
        ("https://:word@h.example/x", CREDENTIALS),
        ("//user@h.example/x", CREDENTIALS),
        ("https:\\\\user@h.example\\x", CREDENTIALS),
        ("https://@h.example/x", CREDENTIALS),
        ("https://h.example:99999/x", HOST_OR_PORT),
        ("https://h.example:x/x", HOST_OR_PORT),
        ("https://[::1/x", HOST_OR_PORT),
        ("https://[fe80::1%25eth0]/x", "the host name is not valid: 'fe80::1%eth0'"),
        ("https://h%2Fb.example/x", "the host name is not valid: 'h/b.example'"),
        ("https://h%00.example/x", "the host name is not valid: 'h\\x00.example'"),
        ("https://u%40h.example/x", "the host name is not valid: 'u@h.example'"),
        ("https://a b.example/x", "the host name is not valid: 'a b.example'"),
        ("https://a\x7f.example/x", "the host name is not valid: 'a\\x7f.example'"),
        *(
            (f"https://a{c}b.example/x", f"the host name is not valid: {f'a{c}b.example'!r}")
            for c in "<>\"'`{}|^%"
        ),
        ("https://ä..example/x", "the host name is not valid: Empty Label"),
        ("https://h.example/\ud800", "the URL contains half of a character"),
        (
            "https://h.example/" + "x" * (MAX_LENGTH - 17),
            f"the URL has {MAX_LENGTH + 1} characters; the maximum is {MAX_LENGTH}",
        ),
    ],
)
def test_a_url_that_cannot_be_requested_is_refused_with_the_reason(raw: str, message: str) -> None:
    with pytest.raises(InvalidUrlError) as caught:
        normalise(raw)
    assert str(caught.value).startswith(message)


def test_a_normalised_url_may_have_16_000_characters() -> None:
    assert MAX_LENGTH == 16_000
    longest = "https://h.example/" + "x" * (MAX_LENGTH - 18)
    assert normalise(longest) == longest
    # Percent-encoding makes six characters of each umlaut.
    with pytest.raises(InvalidUrlError, match="has 16008 characters"):
        normalise("https://h.example/" + "ä" * 2665)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://h.example/", "https://h.example"),
        ("http://h.example:8080/a/b", "http://h.example:8080"),
        ("https://[::1]:8443/x", "https://[::1]:8443"),
        ("https://h.example/x?u=http://other.example/y", "https://h.example"),
        ("https://h.example//other.example/y", "https://h.example"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, host: str) -> None:
    assert origin(url) == host


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b.jpg", "http://h.example/b.jpg"),
        ("b.jpg", "http://h.example/x/b.jpg"),
        ("//cdn.example/b.jpg", "http://cdn.example/b.jpg"),
        ("https://cdn.example/b c", "https://cdn.example/b%20c"),
        # Bytes as HTTP clients decode them: UTF-8, latin-1; and text outside latin-1.
        ("/kl\u00c3\u00a4der", "http://h.example/kl%C3%A4der"),
        ("/kl\u00e4der", "http://h.example/kl%C3%A4der"),
        ("/z\u0142oty", "http://h.example/z%C5%82oty"),
        ("../b.jpg", "http://h.example/b.jpg"),
        ("?w=9", "http://h.example/x/a.jpg?w=9"),
        ("", "http://h.example/x/a.jpg?w=1"),
        ("HTTP://CDN.example", "http://cdn.example/"),
        ("/50%off%20shirt.jpg", "http://h.example/50%off%20shirt.jpg"),
        (" /b.jpg?a=1&amp;b=2\t", "http://h.example/b.jpg?a=1&b=2"),
        ("fetch/https://o.example//b", "http://h.example/x/fetch/https://o.example//b"),
        ("b?", "http://h.example/x/b?"),
        ("?", "http://h.example/x/a.jpg?"),
        ("#top", "http://h.example/x/a.jpg?w=1"),
        ("\\b.jpg", "http://h.example/b.jpg"),
        ("\\\\cdn.example\\b", "http://cdn.example/b"),
        ("/\\cdn.example/b", "http://cdn.example/b"),
        ("./../../b.jpg", "http://h.example/b.jpg"),
        ("http:///cdn.example/b", "http://cdn.example/b"),
        ("b;v=1", "http://h.example/x/b;v=1"),
    ],
)
def test_a_redirect_is_resolved(location: str, target: str) -> None:
    assert resolve("http://h.example/x/a.jpg?w=1", location) == target


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://[", HOST_OR_PORT),
        ("ftp://h.example/x", SCHEME),
        ("javascript:alert(1)", SCHEME),
        ("https://user:word@h.example/x", CREDENTIALS),
    ],
)
def test_a_redirect_to_an_invalid_url_is_refused(location: str, message: str) -> None:
    with pytest.raises(InvalidUrlError) as caught:
        resolve("http://h.example/x/a.jpg", location)
    assert str(caught.value) == message


@given(st.text(max_size=200) | st.text(max_size=200).map("http://h.example/".__add__))
@example("http://h.example/" + "x" * 4000)
@example("http://h.example/../../etc/passwd")
@example("http://\ud800/")
@example("http://h.example/\ud800")
@example("http://h\r\nX: y/")
@example("http://h.example/\r\nX-Injected: y")
def test_any_text_is_normalised_or_refused(text: str) -> None:
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
def image_server() -> Iterator[Server]:
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
def test_any_path_gives_one_row_and_at_most_one_file_named_by_its_content(
    image_server: Server, client: str, paths: list[str]
) -> None:
    with TemporaryDirectory() as folder:
        partition = Partition(Storage(folder)).with_settings(client=client)
        # Parquet cannot store lone surrogates, and no source of rows yields them.
        urls = [image_server.url("/" + path.encode(errors="replace").decode()) for path in paths]
        rows = partition.run(*urls)
        assert [row.key for row in rows] == [f"p-{n}" for n in range(len(urls))]
        assert {row.outcome for row in rows} <= {Outcome.OK, Outcome.INVALID_URL}
        saved = {path_of(JPEG) for row in rows if row.outcome is Outcome.OK}
        assert {row.path for row in rows} - {None} == saved
        stored = {
            str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()
        }
        assert stored == {"manifests/raw_images/zara.2026-01-02.parquet", *saved}
