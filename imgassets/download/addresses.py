"""Decide which addresses are public: a catalogue's URL must not reach into the local network.

The HTTP clients check the address they connect to, at the moment they connect. A redirect or a
changing DNS answer therefore cannot bypass the check. Behind an HTTP proxy, the proxy resolves
names and connects, so it has to refuse private addresses itself: here only hosts that are written
as an IP address or as `localhost` can be refused.
"""

from __future__ import annotations

import ipaddress
import socket

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Everything else is local, reserved or not allocated:
# https://www.iana.org/assignments/ipv6-address-space
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# What Python's versions judge differently: protocol assignments with Teredo, 6to4 (which RFC 7526
# ended in 2015) and its relays, documentation (RFC 9637).
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20"),
    )
)


def is_public(address: str) -> bool:
    """Return whether an IP address is on the public internet.

    For IPv6 addresses that represent an IPv4 address (mapped, NAT64) the IPv4 address decides. 6to4
    addresses (2002::/16) and Teredo addresses (2001::/32) are never public.

    Args:
        address: An IPv4 or IPv6 address, with or without a zone (`fe80::1%eth0`).

    Raises:
        ValueError: It is not an IP address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return _is_global(ip.ipv4_mapped)
        if ip in _NAT64:
            return _is_global(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF))
        if ip not in _GLOBAL_UNICAST:
            return False
    return _is_global(ip)


def _is_global(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if ip.is_multicast or ip.is_reserved or any(ip in network for network in _NOT_PUBLIC):
        return False
    return ip.is_global


def is_ip_address(host: str) -> bool:
    """Return whether a host is an IP address, in any spelling of the C library (`0x7f.1`).

    Args:
        host: The host of a URL; IPv6 addresses without brackets.
    """
    try:
        socket.inet_aton(host)
    except OSError:
        return ":" in host
    return True


def is_local_name(host: str) -> bool:
    """Return whether a URL's host is `localhost` or an IP address that is not public.

    Names are not resolved.

    Args:
        host: The host as it is written in the URL; IPv6 addresses with or without brackets.
    """
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        # The C library reads 2130706433, 0x7f.1 and 0177.0.0.1 as 127.0.0.1.
        return not is_public(socket.inet_ntoa(socket.inet_aton(host)))
    except OSError:
        pass
    try:
        return not is_public(host)
    except ValueError:
        return False
