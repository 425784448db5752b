"""From where a call comes."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollhouse_server.identity.networks import client_address, parse_network, peer_address, within

PROXIES = (parse_network("10.0.0.0/8"), parse_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:4711", "192.0.2.7"),
        ("ipv6:%5B2001:db8::7%5D:4711", "2001:db8::7"),
        ("ipv6:[2001:db8::7]:4711", "2001:db8::7"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:4711", "192.0.2.7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:4711", "fe80::1"),
    ],
)
def test_a_peer_has_an_address(peer: str, address: str) -> None:
    """However gRPC writes it; IPv4 over an IPv6 socket is IPv4."""
    assert peer_address(peer) == ip_address(address)


@pytest.mark.parametrize("peer", ["", "unix:", "unix:/run/socket", "ipv4:", "ipv4:nowhere:1", "vsock:3:5"])
def test_a_peer_without_an_address_has_none(peer: str) -> None:
    """A local socket is in no network."""
    assert peer_address(peer) is None


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        # Nobody but a trusted proxy is believed.
        ("ipv4:192.0.2.7:1", "10.1.1.1", "192.0.2.7"),
        ("ipv4:10.0.0.1:1", "192.0.2.7", "192.0.2.7"),
        # What a caller writes stands left of what the proxy has seen.
        ("ipv4:10.0.0.1:1", "127.0.0.1, 192.0.2.7", "192.0.2.7"),
        ("ipv4:10.0.0.1:1", "127.0.0.1, 192.0.2.7, 10.0.0.2", "192.0.2.7"),
        ("ipv6:[fd00::1]:1", "2001:db8::7", "2001:db8::7"),
        ("ipv4:10.0.0.1:1", None, "10.0.0.1"),
        ("ipv4:10.0.0.1:1", "", "10.0.0.1"),
        ("ipv4:10.0.0.1:1", "unknown", None),
        ("unix:", "192.0.2.7", None),
    ],
)
def test_a_proxys_word_counts_as_far_as_it_is_trusted(
    peer: str, forwarded_for: str | None, address: str | None
) -> None:
    """The first from the right that is no proxy of ours is the caller."""
    found = client_address(peer, forwarded_for, PROXIES)

    assert found == (ip_address(address) if address else None)


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 32))
def test_an_address_is_in_networks_of_its_own_kind_alone(address: object, other: object, prefix: int) -> None:
    """Membership is that of the first bits, and never across IPv4 and IPv6."""
    first, second = ip_address(str(address)), ip_address(str(other))
    bits = second.max_prefixlen - prefix
    network = parse_network(
        f"{ip_address(int(second) >> bits << bits) if second.version == 4 else second}/"
        f"{prefix if second.version == 4 else 128}"
    )

    same = first.version == second.version and (
        int(first) >> bits == int(second) >> bits if first.version == 4 else first == second
    )
    assert within(first, [network]) == same


@pytest.mark.parametrize("text", ["10.0.0.1/8", "fe80::1%eth0/128", "nowhere", "10.0.0.0/33", ""])
def test_what_is_no_network_is_refused(text: str) -> None:
    """Bits behind the prefix are most likely a mistake."""
    with pytest.raises(ValueError):
        parse_network(text)
