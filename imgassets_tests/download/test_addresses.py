"""Which addresses and host names are public."""

from __future__ import annotations

import pytest

from imgassets.download import addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.1",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "2002:a00:1::",
        "2002:101:101::",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::cb00:7101",
        "64:ff9b:1::101:101",
        "::127.0.0.1",
        # Multicast and reserved addresses, also inside NAT64 and 6to4 addresses.
        "64:ff9b::e000:1",
        "64:ff9b::f000:1",
        "2002:e000:1::",
        "4000::1",
        "ff0e::1",
        # Teredo: with a private server, with a private client, with neither.
        "2001:0:a00:1:0:0:fefe:fefe",
        "2001:0:101:101:0:0:f5ff:fffe",
        "2001:0:101:101:0:0:fefe:fefe",
        # Site-local, and what Python's versions judge differently.
        "fec0::1",
        "feff::1",
        "5f00::1",
        "3fff::1",
        "3fff:fff::1",
        "100::1",
        "100:0:0:1::1",
        "192.88.99.1",
        "192.0.0.9",
        "192.0.0.10",
        "::ffff:192.88.99.1",
        "64:ff9b::c058:6301",
        "2001:1::1",
        "2001:3::1",
        "2001:4:112::1",
        "2001:20::1",
        "2001:30::1",
        "2001:db8::1",
        "::ffff:0:808:808",
        "8000::1",
        "fe00::1",
    ],
)
def test_an_address_of_the_local_network_is_not_public(address: str) -> None:
    assert not addresses.is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "93.184.216.34",
        "2606:4700::1111",
        "2606:4700::1111%eth0",
        "::ffff:1.1.1.1",
        "64:ff9b::101:101",
        "192.88.98.1",
        "2001:200::1",
        "2003::1",
        "3ffe::1",
    ],
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert addresses.is_public(address)


def test_a_host_name_is_not_an_address() -> None:
    with pytest.raises(ValueError, match="shop"):
        addresses.is_public("shop.example")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost.",
        "LocalHost",
        "LOCALHOST.",
        "shop.localhost",
        "shop.LOCALHOST.",
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "0",
        "0x7f.1",
        "0X7F000001",
        "0177.0.0.1",
        "2130706433",
        "10.0.0.1",
        "169.254.169.254",
        "::1",
        "[::1]",
        "[fe80::1]",
        "[::ffff:7f00:1]",
        "[2001:0:a00:1::]",
        "[2002:7f00:1::]",
    ],
)
def test_localhost_and_private_addresses_are_local_in_every_spelling(host: str) -> None:
    assert addresses.is_local_name(host)


@pytest.mark.parametrize(
    "host",
    [
        "shop.example",
        "shop.example.",
        "localhost.example",
        "notlocalhost",
        "XLOCALHOST",
        "LOCALHOSTX",
        "local",
        "1.1.1.1",
        "16843009",
        "0x1010101",
        "[2606:4700::1111]",
        "2606:4700::1111",
        "127.0.0.1.example",
        "",
    ],
)
def test_a_host_that_may_be_public_is_not_local(host: str) -> None:
    assert not addresses.is_local_name(host)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("2130706433", True), ("0x7f.1", True), ("::1", True),
        ("::ffff:127.0.0.1", True), ("localhost", False), ("shop.example", False),
        ("1.2.3.4.example", False), ("", False), ("1.2.3.256", False),
    ],
)  # fmt: skip
def test_ip_addresses_are_told_from_host_names(host: str, expected: bool) -> None:
    assert addresses.is_ip_address(host) is expected
