"""From where a call comes: the peer's address, and the networks that a credential may be used from."""

import ipaddress
from collections.abc import Iterable
from typing import TypeAlias
from urllib.parse import unquote

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAX_HOPS = 20


def parse_network(text: str) -> Network:
    """Return a network, such as 10.0.0.0/8; a bare address is a network of one.

    Raises:
        ValueError: it is none, or has bits set behind its prefix.
    """
    if "%" in text:
        raise ValueError("zones have no meaning elsewhere")
    return ipaddress.ip_network(text)


def peer_address(peer: str) -> Address | None:
    """Return the address of a peer as gRPC names it, `ipv4:10.0.0.1:5` or `ipv6:%5B::1%5D:5`; None for a local socket.

    An IPv4 address in an IPv6 socket's form is the IPv4 address.
    """
    family, _, rest = unquote(peer).partition(":")
    if family not in ("ipv4", "ipv6"):
        return None
    return _address(rest.rpartition(":")[0].strip("[]"))


def client_address(peer: str, forwarded_for: str | None, trusted_proxies: Iterable[Network]) -> Address | None:
    """Return the address of who calls: the peer's, or, behind trusted proxies, what the nearest of them has seen.

    Each proxy adds who it heard from at the right, so the first from the right that is no proxy of ours is the caller;
    what stands left of it anyone may have written.
    """
    address = peer_address(peer)
    proxies = tuple(trusted_proxies)
    for hop in reversed((forwarded_for or "").split(",")[-_MAX_HOPS:]):
        if address is None or not within(address, proxies) or not hop.strip():
            break
        address = _address(hop.strip())
    return address


def within(address: Address, networks: Iterable[Network]) -> bool:
    """Tell whether an address lies in one of the networks."""
    return any(address.version == network.version and address in network for network in networks)


def is_part(network: Network, other: Network) -> bool:
    """Tell whether every address of a network lies in the other one."""
    if isinstance(network, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and network.subnet_of(other)
    return isinstance(other, ipaddress.IPv6Network) and network.subnet_of(other)


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
