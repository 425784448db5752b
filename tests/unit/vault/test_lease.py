"""When a token is renewed, and when a new one is fetched."""

import pytest
from tollhouse_server.vault.lease import Lease


def lease(ttl: float, *, full: float = 900.0, renewable: bool = True) -> Lease:
    return Lease(granted_at=100.0, ttl_seconds=ttl, full_ttl_seconds=full, renewable=renewable)


def test_renewal_is_due_when_a_third_of_the_life_is_left() -> None:
    """Two more tries fit in before the end."""
    assert lease(900.0).seconds_to_renewal(now=100.0) == pytest.approx(600.0)
    assert lease(900.0).seconds_to_renewal(now=5000.0) == 0.0


def test_a_token_expires_at_the_end_of_its_life() -> None:
    """Not before, and one without an end never."""
    assert not lease(900.0).expired(now=999.0)
    assert lease(900.0).expired(now=1000.0)
    assert not lease(0.0).expired(now=1e9)


def test_a_renewal_that_brings_little_is_not_worth_it() -> None:
    """Near its longest life a token is renewed for less and less: log in again instead."""
    assert lease(900.0).worth_renewing
    assert not lease(300.0).worth_renewing
    assert not lease(900.0, renewable=False).worth_renewing
