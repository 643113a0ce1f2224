"""Host names: DNS servers that do not answer or are slow, and what the clients do with answers."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from imgassets.download import addresses
from imgassets.download.client import Client, Limits, Request
from imgassets.download.curl_client import CurlClient
from imgassets.download.name_lookup import NameLookup
from imgassets.download.requests_client import RequestsClient
from imgassets.errors import FetchAbortedError, FetchError
from imgassets.manifests import Outcome
from imgassets_tests.download.conftest import Partition
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Server

JPEG = image_bytes()
NO_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class Names:
    """The answers of `socket.getaddrinfo`, in place of those of a DNS server.

    Attributes:
        answers: The addresses by name; names of the domain `dead` get no answer.
        delay_s: Seconds until an answer.
        lookups: Number of lookups by name.
        started: Set when a lookup has started.
        answered: Set at the end of the test: lookups that hang then fail.
    """

    def __init__(self, real: Callable[..., Any]) -> None:
        self.answers: dict[str, list[str]] = {}
        self.delay_s = 0.0
        self.lookups: Counter[str] = Counter()
        self.started = threading.Event()
        self.answered = threading.Event()
        self._real = real

    def getaddrinfo(self, host: str, port: object, *args: object, **kwargs: object) -> Any:
        if addresses.is_ip_address(host):
            return self._real(host, port, *args, **kwargs)
        self.lookups[host] += 1
        self.started.set()
        if host.endswith(".dead"):
            self.answered.wait(60)
            raise NO_NAME
        time.sleep(self.delay_s)
        if host not in self.answers:
            raise NO_NAME
        return [
            info
            for address in self.answers[host]
            for info in self._real(address, port, *args, **kwargs)
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names(socket.getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    yield names
    names.answered.set()


def test_names_without_an_answer_cost_no_image_of_other_hosts(
    partition: Partition, server: Server, names: Names
) -> None:
    server.add("/a.jpg", JPEG)
    # More than the 20 names that libcurl looks up at a time.
    dead = [server.url("/a.jpg", host=f"{n}.dead") for n in range(30)]
    good = [server.url("/a.jpg", host=f"{n}.example") for n in range(60)]
    names.answers = {f"{n}.example": ["127.0.0.1"] for n in range(60)}
    partition.with_settings(
        threads=32, retries=0, connect_timeout_s=2, read_timeout_s=20, total_timeout_s=20
    )
    rows = partition.run(*dead, *good)
    assert [row.outcome for row in rows] == [Outcome.TIMEOUT] * 30 + [Outcome.OK] * 60
    assert str(rows[0].error) == (
        "the host name 0.dead was not resolved within 2 s; see download.connect_timeout_s, "
        "download.read_timeout_s and download.total_timeout_s"
    )


def test_slow_lookups_cost_no_image(partition: Partition, server: Server, names: Names) -> None:
    server.add("/a.jpg", JPEG)
    names.answers = {f"{n}.example": ["127.0.0.1"] for n in range(40)}
    names.delay_s = 0.5
    partition.with_settings(threads=40, retries=0, connect_timeout_s=20, total_timeout_s=20)
    rows = partition.run(*(server.url("/a.jpg", host=name) for name in names.answers))
    assert [row.outcome for row in rows] == [Outcome.OK] * 40
    assert set(names.lookups.values()) == {1}


def test_a_host_is_not_looked_up_again_for_a_kept_alive_connection(
    partition: Partition, server: Server, names: Names
) -> None:
    names.answers = {"shop.example": ["127.0.0.1"]}
    urls = [server.url(f"/{n}.jpg", host="shop.example") for n in range(20)]
    for n in range(20):
        server.add(f"/{n}.jpg", JPEG)
    rows = partition.with_settings(threads=1).run(*urls)
    assert {row.outcome for row in rows} == {Outcome.OK}
    assert (names.lookups["shop.example"], server.connections) == (1, 1)


def test_a_name_that_does_not_exist_is_a_connection_error(
    partition: Partition, names: Names
) -> None:
    (row,) = partition.run("http://shop.example/a.jpg")
    assert (row.outcome, row.attempts) == (Outcome.CONNECTION_ERROR, 3)
    assert row.error == ("the host name shop.example cannot be resolved: Name or service not known")
    assert names.lookups["shop.example"] == 3


@pytest.mark.parametrize("host", ["a..example", "a" * 64 + ".example"])
def test_a_name_that_cannot_exist_is_a_connection_error(partition: Partition, host: str) -> None:
    (row,) = partition.with_settings(retries=0).run(f"http://{host}/a.jpg")
    assert row.outcome is Outcome.CONNECTION_ERROR
    assert str(row.error).startswith(f"the host name {host} cannot be resolved: a part of it is")


@pytest.mark.parametrize("found", [["::1", "127.0.0.1"], ["127.0.0.2", "127.0.0.1"]])
def test_the_next_address_of_a_host_is_tried_when_one_refuses(
    partition: Partition, server: Server, names: Names, found: list[str]
) -> None:
    server.add("/a.jpg", JPEG)
    names.answers = {"shop.example": found}
    (row,) = partition.run(server.url("/a.jpg", host="shop.example"))
    assert (row.outcome, row.attempts) == (Outcome.OK, 1), row.error


def test_only_public_addresses_of_a_host_are_connected_to(
    partition: Partition, server: Server, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Here 127.0.0.1 counts as public.
    is_public = addresses.is_public
    monkeypatch.setattr(addresses, "is_public", lambda a: a == "127.0.0.1" or is_public(a))
    server.add("/a.jpg", JPEG)
    names.answers = {"mixed.example": ["10.0.0.1", "127.0.0.1"], "local.example": ["127.0.0.2"]}
    partition.with_settings(allow_private_addresses=False)
    mixed, local = partition.run(
        server.url("/a.jpg", host="mixed.example"), server.url("/a.jpg", host="local.example")
    )
    assert mixed.outcome is Outcome.OK, mixed.error
    assert local.outcome is Outcome.BLOCKED_ADDRESS
    assert "127.0.0.2 is not a public address" in str(local.error)
    assert server.connections == 1


def test_with_a_proxy_only_the_name_of_the_proxy_is_looked_up(
    partition: Partition, server: Server, names: Names
) -> None:
    server.add("http://shop.example/a.jpg", JPEG)
    names.answers = {"proxy.example": ["127.0.0.1"]}
    proxy = server.url("", host="proxy.example")
    partition.with_settings(proxy=proxy, allow_private_addresses=False)
    (row,) = partition.run("http://shop.example/a.jpg")
    assert row.outcome is Outcome.OK, row.error
    assert names.lookups == {"proxy.example": 1}


def _clients() -> list[Client]:
    return [CurlClient(allow_private=True), RequestsClient(connections=1, allow_private=True)]


def test_a_lookup_that_hangs_does_not_delay_an_abort(names: Names) -> None:
    limits = Limits(connect_s=60, read_s=60, total_s=60, max_bytes=1000)
    for client in _clients():
        names.started.clear()
        errors: list[BaseException] = []

        def fetch(client: Client = client, errors: list[BaseException] = errors) -> None:
            try:
                client.fetch(Request("http://shop.dead/a.jpg", {}), limits)
            except FetchAbortedError as error:
                errors.append(error)

        thread = threading.Thread(target=fetch)
        thread.start()
        assert names.started.wait(30)
        client.abort()
        thread.join(30)
        client.close()
        assert len(errors) == 1
        assert not names.answered.is_set()


def test_a_name_is_looked_up_once_at_a_time(names: Names) -> None:
    lookup = NameLookup()
    for _ in range(5):
        with pytest.raises(FetchError, match="was not resolved"):
            lookup.addresses("shop.dead", 0.01)
    assert names.lookups["shop.dead"] == 1


def test_lookups_that_hang_do_not_use_up_threads(names: Names) -> None:
    lookup = NameLookup(max_threads=3)
    for n in range(10):
        with pytest.raises(FetchError, match="was not resolved"):
            lookup.addresses(f"{n}.dead", 0.01)
    assert names.lookups.total() <= 3
    names.answers = {"shop.example": ["127.0.0.1", "::1"]}
    names.answered.set()
    assert lookup.addresses("shop.example", 30) == ["127.0.0.1", "::1"]


def test_link_local_addresses_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    infos = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (a, 0, 0, 2)) for a in ("fe80::1%eth0", "::1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)
    assert NameLookup().addresses("shop.example", 30) == ["::1"]
    infos.pop()
    with pytest.raises(FetchError, match="it has no usable address"):
        NameLookup().addresses("shop.example", 30)
