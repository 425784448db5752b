"""Prepaid wallets: money that a limit lets be spent, and in which order it is spent and expires.

A wallet is a limit: its amount is the sum of the top-ups less what has expired, so the ledger admits and refuses calls
as it does for every limit. What is kept beside is only which top-up paid for what the limit has settled.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

_NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fund:
    """One top-up. `is_over` says that nothing of it can be spent any more."""

    top_up_id: str
    amount_nanos: int
    created_at: datetime
    expires_at: datetime | None = None
    spent_nanos: int = 0
    expired_nanos: int = 0
    is_over: bool = False

    @property
    def left_nanos(self) -> int:
        """What can still be spent of it."""
        return self.amount_nanos - self.spent_nanos - self.expired_nanos


@dataclass(frozen=True, slots=True, kw_only=True)
class Funds:
    """The top-ups of a wallet, and how much of what its limit has settled was taken from them."""

    funds: tuple[Fund, ...]
    attributed_nanos: int

    @property
    def amount_nanos(self) -> int:
        """What the wallet's limit may hold and settle: all that was paid, less what has expired."""
        return sum(fund.amount_nanos - fund.expired_nanos for fund in self.funds)


def attribute(funds: Funds, settled_nanos: int) -> Funds:
    """Take what was settled since the last time from the top-ups: first of all from the one that expires first.

    What a correction has given back goes the other way. A refund of what an expired top-up had paid stays in the
    wallet, and the next calls are paid from it. What is more than all top-ups have left was admitted while one expired,
    and is taken from what has; what is still more is left for the next top-up.
    """
    left = settled_nanos - funds.attributed_nanos
    moved: dict[str, Fund] = {}
    for fund in _ordered(funds, is_over=False)[:: 1 if left > 0 else -1]:
        amount = min(left, fund.left_nanos) if left > 0 else -min(-left, fund.spent_nanos)
        moved[fund.top_up_id] = replace(fund, spent_nanos=fund.spent_nanos + amount)
        left -= amount
    for fund in _ordered(funds, is_over=True)[::-1] if left > 0 else ():
        amount = min(left, fund.expired_nanos)
        spent, expired = fund.spent_nanos + amount, fund.expired_nanos - amount
        moved[fund.top_up_id] = replace(fund, spent_nanos=spent, expired_nanos=expired)
        left -= amount
    return Funds(
        funds=tuple(moved.get(fund.top_up_id, fund) for fund in funds.funds), attributed_nanos=settled_nanos - left
    )


def _ordered(funds: Funds, *, is_over: bool) -> list[Fund]:
    return sorted((fund for fund in funds.funds if fund.is_over is is_over), key=_order)


def expire(funds: Funds, now: datetime, held_nanos: int) -> Funds:
    """Let what is left of top-ups that are due expire, but for what calls in flight hold: that is still theirs.

    `attribute` has been asked first. What a call leaves of what it held expires in a later round.
    """
    changed: dict[str, Fund] = {}
    for fund in sorted(funds.funds, key=_order):
        if fund.is_over or fund.expires_at is None or fund.expires_at > now:
            continue
        kept = min(fund.left_nanos, held_nanos)
        held_nanos -= kept
        expired = fund.expired_nanos + fund.left_nanos - kept
        changed[fund.top_up_id] = replace(fund, expired_nanos=expired, is_over=kept == 0)
    return replace(funds, funds=tuple(changed.get(fund.top_up_id, fund) for fund in funds.funds))


def _order(fund: Fund) -> tuple[datetime, datetime, str]:
    return fund.expires_at or _NEVER, fund.created_at, fund.top_up_id


def after(funds: Funds, *, settled_nanos: int, held_nanos: int, now: datetime) -> Funds:
    """Return what a wallet is once everything until `now` is accounted for."""
    return expire(attribute(funds, settled_nanos), now, held_nanos)


def with_top_up(funds: Funds, fund: Fund) -> Funds:
    """Return the wallet with one more top-up."""
    return replace(funds, funds=(*funds.funds, fund))
