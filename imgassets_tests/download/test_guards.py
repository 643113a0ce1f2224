"""Refuse private addresses, however they are written or reached, and images that are too small."""

from __future__ import annotations

import socket

import pytest

from imgassets.download import addresses
from imgassets.manifests import Outcome
from imgassets_tests.download.conftest import Partition
from imgassets_tests.download.images import image_bytes
from imgassets_tests.download.server import Server, redirect

JPEG = image_bytes()


@pytest.fixture
def guarded(partition: Partition) -> Partition:
    return partition.with_settings(allow_private_addresses=False, retries=1)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
    ],
)
def test_no_spelling_of_a_private_address_is_requested(
    guarded: Partition, server: Server, host: str
) -> None:
    server.add("/a.jpg", JPEG)
    (row,) = guarded.run(server.url("/a.jpg", host=host))
    assert (row.outcome, row.attempts) == (Outcome.BLOCKED_ADDRESS, 1)
    assert str(row.error).endswith(" is not a public address; see download.allow_private_addresses")
    assert server.connections == 0
    assert guarded.files == {}


def test_a_redirect_to_a_private_address_is_not_followed(
    guarded: Partition, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Here 127.0.0.1 counts as public and 127.0.0.2 as private.
    is_public = addresses.is_public
    monkeypatch.setattr(addresses, "is_public", lambda a: a == "127.0.0.1" or is_public(a))
    server.add("/secret", JPEG)
    rows = guarded.run(
        server.add("/a.jpg", redirect(server.url("/secret", host="127.0.0.2"))),
        server.add("/b.jpg", redirect("http://169.254.169.254/latest/meta-data")),
        server.add("/c.jpg", JPEG),
    )
    assert [str(row.outcome) for row in rows] == ["blocked_address", "blocked_address", "ok"]
    assert server.hits["/secret"] == 0
    assert "127.0.0.2" in str(rows[0].error)


# libcurl keeps an answer for a minute; `test_name_lookup` covers the check when it connects.
@pytest.mark.parametrize("partition", ["requests"], indirect=True)
def test_a_host_whose_dns_answer_changes_is_checked_by_the_address_connected_to(
    guarded: Partition, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("/a.jpg", JPEG)
    answers = iter(["93.184.216.34", "127.0.0.1", "127.0.0.1"])
    lookups = []

    def rebinding_getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[object]:
        lookups.append(host)
        address = next(answers) if host == "rebind.example" else host
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def refuse_connection(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", rebinding_getaddrinfo)
    monkeypatch.setattr(socket.socket, "connect", refuse_connection)
    (row,) = guarded.run(server.url("/a.jpg", host="rebind.example"))
    # The first attempt connects to the public address; the second DNS answer is blocked.
    assert (row.outcome, row.attempts) == (Outcome.BLOCKED_ADDRESS, 2)
    assert lookups == ["rebind.example", "93.184.216.34", "rebind.example"]
    assert server.connections == 0


def test_a_placeholder_of_one_pixel_is_too_small(partition: Partition, server: Server) -> None:
    pixel = image_bytes(width=1, height=1)
    assert len(pixel) >= partition.settings.min_bytes
    (row,) = partition.run(server.add("/pixel.jpg", pixel))
    assert row.outcome is Outcome.TOO_SMALL
    assert row.error == "1 x 1 pixels, fewer than 16 (download.min_pixels)"
    (row,) = partition.with_settings(min_pixels=1).run(server.url("/pixel.jpg"))
    assert row.outcome is Outcome.OK


def test_an_image_below_min_bytes_is_too_small(partition: Partition, server: Server) -> None:
    url = server.add("/a.jpg", JPEG)
    (row,) = partition.with_settings(min_bytes=len(JPEG) + 1).run(url)
    assert (row.outcome, partition.files) == (Outcome.TOO_SMALL, {})
    (row,) = partition.with_settings(min_bytes=len(JPEG)).run(url)
    assert row.outcome is Outcome.OK
