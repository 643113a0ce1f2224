"""Request headers, credentials and proxies of requests."""

from __future__ import annotations

import pytest

from imgassets.download.request_headers import request_headers
from imgassets.errors import SettingsError
from imgassets.manifests import Outcome
from imgassets.settings import DownloadSettings
from imgassets_tests.download.conftest import Partition
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Server, answer, redirect, with_etag

JPEG = image_bytes()


def test_requests_carry_the_retailers_headers_and_credentials(
    partition: Partition, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZARA_COOKIE", "session=1")
    monkeypatch.setenv("ZARA_TOKEN", "secret")
    partition.with_settings(
        user_agent="imgassets (me@example.org)",
        headers={"Referer": "https://zara.example/", "Cookie": "${ZARA_COOKIE}"},
        auth="bearer ${ZARA_TOKEN}",
    )
    partition.run(server.add("/a.jpg", JPEG))
    (sent,) = server.requests["/a.jpg"]
    assert sent["User-Agent"] == "imgassets (me@example.org)"
    assert sent["Referer"] == "https://zara.example/"
    assert sent["Cookie"] == "session=1"
    assert sent["Authorization"] == "Bearer secret"
    assert sent["Accept-Encoding"] == "identity"


def test_headers_of_the_settings_replace_the_defaults_whatever_their_case(
    partition: Partition, server: Server
) -> None:
    headers = {"user-agent": "mine/1", "ACCEPT": "image/png", "accept-encoding": "gzip"}
    partition.with_settings(headers=headers | {"authorization": "none"}, auth="bearer t")
    partition.run(server.add("/a.jpg", JPEG))
    (sent,) = server.requests["/a.jpg"]
    assert sent.get_all("User-Agent") == ["mine/1"]
    assert sent.get_all("Accept") == ["image/png"]
    assert sent.get_all("Accept-Encoding") == ["gzip"]
    assert sent.get_all("Authorization") == ["Bearer t"]


def test_an_empty_header_and_one_with_spaces_around_it_are_sent(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(headers={"Accept": "", "X-Shop": "  a  "})
    partition.run(server.add("/a.jpg", JPEG))
    (sent,) = server.requests["/a.jpg"]
    assert (sent.get_all("Accept"), sent.get_all("X-Shop")) == ([""], ["a"])


@pytest.mark.parametrize("name", ["", "Bad Name", "A:B", "X\nY: z\nW", "X-\u00dc", "Name "])
def test_what_is_not_the_name_of_a_header_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"^download\.headers: .* is not the name of a header"):
        request_headers(DownloadSettings(headers={name: "x"}))


def test_conditions_replace_headers_of_the_settings_whatever_their_case(
    partition: Partition, server: Server
) -> None:
    url = server.add("/a.jpg", with_etag(JPEG, '"1"'))
    partition.with_settings(headers={"if-none-match": '"0"'}).run(url)
    (row,) = partition.run(url, refresh=True)
    assert (row.outcome, row.http_status) == (Outcome.OK, 304)
    assert server.requests["/a.jpg"][1].get_all("If-None-Match") == ['"1"']


def test_basic_credentials_are_encoded(
    partition: Partition, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGIN", "user:pass")
    partition.with_settings(auth="basic ${LOGIN}").run(server.add("/a.jpg", JPEG))
    assert server.requests["/a.jpg"][0]["Authorization"] == "Basic dXNlcjpwYXNz"


def test_credentials_do_not_follow_a_redirect_to_another_host(
    partition: Partition, server: Server
) -> None:
    partition.with_settings(auth="bearer t", headers={"cookie": "c", "Referer": "r"})
    server.add("/same.jpg", redirect(server.url("/other.jpg", host="localhost")))
    server.add("/other.jpg", JPEG)
    (row,) = partition.run(server.add("/a.jpg", redirect("/same.jpg")))
    assert row.outcome is Outcome.OK
    assert server.requests["/same.jpg"][0]["Authorization"] == "Bearer t"
    sent = server.requests["/other.jpg"][0]
    assert (sent["Authorization"], sent["Cookie"], sent["Referer"]) == (None, None, "r")


def test_cookies_that_a_server_sets_are_not_sent_back(partition: Partition, server: Server) -> None:
    response = answer(JPEG, headers={"Set-Cookie": "track=1"})
    partition.with_settings(threads=1).run(*(server.add(f"/{n}.jpg", response) for n in range(3)))
    assert [server.requests[f"/{n}.jpg"][0]["Cookie"] for n in range(3)] == [None] * 3


def test_requests_go_through_the_proxy(
    partition: Partition, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXY_LOGIN", "user:pass")
    server.add("http://shop.example/a.jpg", JPEG)
    proxy = server.url("").replace("http://", "http://${PROXY_LOGIN}@")
    partition.with_settings(proxy=proxy, allow_private_addresses=False)
    (row,) = partition.run("http://shop.example/a.jpg")
    assert row.outcome is Outcome.OK, row.error
    (sent,) = server.requests["http://shop.example/a.jpg"]
    assert sent["Proxy-Authorization"] == "Basic dXNlcjpwYXNz"


def test_the_proxy_of_the_environment_is_not_used_for_local_addresses(
    partition: Partition, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url(""))
    monkeypatch.setenv("no_proxy", "direct.invalid")
    server.add("http://shop.example/a.jpg", JPEG)
    server.add("http://direct.invalid/a.jpg", JPEG)
    partition.with_settings(retries=0)
    rows = partition.run(
        "http://shop.example/a.jpg", server.add("/a.jpg", JPEG), "http://direct.invalid/a.jpg"
    )
    assert [str(row.outcome) for row in rows] == ["ok", "ok", "connection_error"]
    assert server.hits["/a.jpg"] == 1


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "localhost.", "shop.localhost", "2130706433", "[::1]", "10.0.0.1"],
)
def test_no_private_address_is_requested_through_a_proxy(
    partition: Partition, server: Server, host: str
) -> None:
    partition.with_settings(proxy=server.url(""), allow_private_addresses=False)
    (row,) = partition.run(f"http://{host}/a.jpg")
    assert row.outcome is Outcome.BLOCKED_ADDRESS
    assert server.connections == 0


def test_headers_of_the_settings_replace_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTACT", "me@example.org")
    default = request_headers(DownloadSettings()).headers
    # A server sends AVIF only to clients that list it.
    assert default["Accept"].startswith("image/jpeg,image/png,image/webp,")
    assert "avif" not in default["Accept"]
    custom = request_headers(
        DownloadSettings(user_agent="shop/1 (${CONTACT})", headers={"Accept": "*/*"})
    )
    assert dict(custom.headers) == {
        "User-Agent": "shop/1 (me@example.org)", "Accept": "*/*", "Accept-Encoding": "identity",
    }  # fmt: skip
    assert custom.public_headers == custom.headers


def test_basic_credentials_use_the_standard_base64_alphabet() -> None:
    headers = request_headers(DownloadSettings(auth="basic user:~~~???>>>")).headers
    assert headers["Authorization"] == "Basic dXNlcjp+fn4/Pz8+Pj4="


def test_a_proxy_in_the_settings_is_used_for_all_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("https_proxy", "http://other.example:1")
    headers = request_headers(DownloadSettings(proxy="http://proxy.example:1"))
    for origin in ("http://shop.example", "https://shop.example", "https://127.0.0.1"):
        assert headers.proxy_for(origin) == "http://proxy.example:1"


@pytest.mark.parametrize(
    ("environment", "http", "https"),
    [
        ({}, None, None),
        ({"http_proxy": "http://p:1"}, "http://p:1", None),
        ({"https_proxy": "http://p:2"}, None, "http://p:2"),
        ({"http_proxy": "http://p:1", "HTTPS_PROXY": "http://p:2"}, "http://p:1", "http://p:2"),
        ({"all_proxy": "http://p:3"}, "http://p:3", "http://p:3"),
        ({"all_proxy": "http://p:3", "https_proxy": "http://p:2"}, "http://p:3", "http://p:2"),
        ({"http_proxy": "", "all_proxy": "http://p:3"}, "http://p:3", "http://p:3"),
        ({"all_proxy": "http://p:3", "no_proxy": "shop.example"}, None, None),
    ],
)
def test_the_environment_sets_a_proxy_for_each_scheme(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    http: str | None,
    https: str | None,
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    headers = request_headers(DownloadSettings())
    for _ in range(2):
        assert headers.proxy_for("http://shop.example") == http
        assert headers.proxy_for("https://shop.example") == https
        assert headers.proxy_for("http://localhost.:8080") is None


@pytest.mark.parametrize("value", ["a\r\nX-Injected: b", "\u00fc", "a\0"])
def test_a_header_value_that_is_not_printable_ascii_is_refused(value: str) -> None:
    with pytest.raises(
        SettingsError, match=r"download\.headers\.Referer must contain only printable"
    ):
        request_headers(DownloadSettings(headers={"Referer": value}))


def test_the_error_names_an_environment_variable_that_is_not_set() -> None:
    with pytest.raises(SettingsError, match=r"download\.auth names .* NO_SUCH_VARIABLE"):
        request_headers(DownloadSettings(auth="bearer ${NO_SUCH_VARIABLE}"))
