"""Which addresses may be asked: a catalogue's URL must not reach into the own network.

Here lives the judgement of an address. The engines ask for it at the moment they connect, with the
address they connect to, so that neither a redirect nor a name whose DNS answer changes gets past
it. Behind an HTTP proxy the proxy looks names up and connects: it has to refuse private addresses
itself, and here only hosts that are written as an address, or as `localhost`, can be refused.
"""

from __future__ import annotations

import ipaddress
import socket

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IP address is on the open internet.

    IPv6 addresses that stand for an IPv4 address (mapped, NAT64) are judged as that, and 6to4
    addresses, which carry one, by both. No Teredo address (2001::/32) is on the open internet.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return _is_global(ip.ipv4_mapped)
        if ip in _NAT64:
            return _is_global(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF))
        if ip.sixtofour is not None and not _is_global(ip.sixtofour):
            return False
    return _is_global(ip)


def _is_global(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def is_local_name(host: str) -> bool:
    """Whether a URL's host is, as it is written, no address on the open internet."""
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        # As the C library reads addresses: 2130706433, 0x7f.1 and 0177.0.0.1 are 127.0.0.1.
        return not is_public(socket.inet_ntoa(socket.inet_aton(host)))
    except OSError:
        pass
    try:
        return not is_public(host)
    except ValueError:
        return False
