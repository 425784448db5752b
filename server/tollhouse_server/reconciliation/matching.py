"""Compares both books line by line, and says of each difference what may have made it. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from tollhouse_server.pricing.terms import PriceBook
from tollhouse_server.reconciliation.list_prices import explain_price
from tollhouse_server.reconciliation.sides import ROUNDING, TAX, Side, Sides, whole
from tollhouse_server.reconciliation.sku_map import SkuMap
from tollhouse_server.reconciliation.variances import Compared, Finding, LineKey, Reason
from tollhouse_server.reporting.sums import UNITEMISED

_SAME_QUANTITY_PERMILLE = 1
_CURRENCY_PERMILLE = 10
_DAY = timedelta(days=1)
_MOST_SHOWN = 2**63 - 1
"""Byte-seconds of other services can be more; they are only shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What a comparison goes by. `rounding_nanos` is the most that rounding one line of the bill can make."""

    sides: Sides
    sku_map: SkuMap
    prices: PriceBook
    month: tuple[date, date]
    rounding_nanos: int

    def bound(self, side: Side) -> int:
        """Return the most that rounding can make of a key: each line of the bill, and each booked line of a call."""
        return side.lines * self.rounding_nanos + side.calls + 1


def compare(books: Books) -> list[Compared]:
    """Return every line of the month that is in either book, by day, project, model and SKU."""
    pools = _suspense_pools(books.sides)
    keys = sorted(books.sides.by_key, key=lambda key: (key.day, key.series))
    return [_compared(books, key, pools) for key in keys if books.month[0] <= key.day < books.month[1]]


def _compared(books: Books, key: LineKey, pools: dict[LineKey, int]) -> Compared:
    side = books.sides.by_key[key]
    return Compared(
        key=key,
        google_sku=", ".join(sorted(side.google_skus)),
        booked_nanos=side.booked_nanos,
        billed_nanos=side.billed_nanos,
        credits_nanos=whole(side.credits),
        booked_quantity=side.booked_quantity,
        billed_quantity=min(whole(side.quantity), _MOST_SHOWN),
        findings=tuple(_findings(books, key, side, pools)),
        concerns_all=key.project not in books.sides.booked_projects,
    )


def _findings(books: Books, key: LineKey, side: Side, pools: dict[LineKey, int]) -> Iterator[Finding]:
    free, given = whole(side.free), whole(side.credits)
    if free:
        yield Finding(reason=Reason.FREE_TIER, amount_nanos=free, detail="Google gives it back as a free tier.")
    if given != free:
        yield Finding(reason=Reason.CREDITS, amount_nanos=given - free, detail="Credits are on the bill only.")
    rest = side.excess_nanos
    for finding in _reasons(books, key, side, pools):
        rest -= finding.amount_nanos
        yield finding
    if rest and abs(rest) <= books.bound(side):
        yield Finding(reason=Reason.ROUNDING, amount_nanos=rest, detail=f"{side.lines} lines of the bill are rounded.")
    elif rest:
        yield Finding(reason=Reason.QUANTITY_MISMATCH, amount_nanos=rest, detail=_counted(books, side))


def _counted(books: Books, side: Side) -> str:
    newest = books.sides.newest_export
    until = f"; Google may add lines to those exported until {newest:%Y-%m-%d %H:%M} UTC" if newest else ""
    return f"Google counts {side.quantity.normalize():f}, the ledger {side.booked_quantity}{until}."


def _reasons(books: Books, key: LineKey, side: Side, pools: dict[LineKey, int]) -> Iterator[Finding]:
    """Yield reasons for what differs between the bill without credits and the ledger, as far as any are found."""
    whole_line = _of_whole_line(books, key, side)
    if whole_line is not None:
        yield whole_line
        return
    rest = side.excess_nanos
    for finding in _in_turn(books, key, side, pools):
        # A reason is one only where less is left to explain with it than without; that use is late, quantities say.
        helps = finding.reason is Reason.LATE_USAGE or abs(rest - finding.amount_nanos) < abs(rest)
        if finding.amount_nanos and helps and abs(rest) > books.bound(side):
            rest -= finding.amount_nanos
            yield finding
    if abs(rest) > books.bound(side):
        yield from _of_price(books, key, side, rest)


def _of_whole_line(books: Books, key: LineKey, side: Side) -> Finding | None:
    excess, reason, detail = side.excess_nanos, None, ""
    if not excess:
        return None
    if key.sku == TAX:
        reason, detail = Reason.TAX, "Tax is on the bill only."
    elif key.sku == ROUNDING:
        reason, detail = Reason.ROUNDING, "A line of the bill that corrects its own rounding."
    elif key.project not in books.sides.booked_projects:
        reason, detail = Reason.PROJECT_NOT_IN_LEDGER, f"No account with project {key.project!r} was used in the month."
    elif key.project not in books.sides.billed_projects:
        reason, detail = Reason.PROJECT_NOT_IN_BILL, f"No line of the bill names project {key.project!r}."
    elif side.is_unknown:
        reason, detail = Reason.UNKNOWN_SKU, f"No rule says what {', '.join(sorted(side.google_skus))} is."
    return None if reason is None else Finding(reason=reason, amount_nanos=excess, detail=detail)


def _in_turn(books: Books, key: LineKey, side: Side, pools: dict[LineKey, int]) -> Iterator[Finding]:
    doubled, adjusted = whole(side.doubled), whole(side.adjusted)
    detail = f"{side.doubled_quantity.normalize():f} of the quantity is in lines that are there before."
    yield Finding(reason=Reason.DOUBLE_LINE, amount_nanos=doubled, detail=detail)
    yield Finding(reason=Reason.ADJUSTMENT, amount_nanos=adjusted, detail="Google has corrected the bill by a line.")
    yield _free_use(side)
    yield Finding(
        reason=Reason.SUSPENSE,
        amount_nanos=_suspense(key, side, pools),
        detail="Calls of unknown outcome are booked at what was expected.",
    )
    yield _late(books, key, side)


def _free_use(side: Side) -> Finding:
    """Say what use is worth, at the price it was booked at, that the bill has at no cost."""
    unpaid = min(whole(side.quantity - side.paid_quantity), side.booked_quantity)
    worth = -(side.booked_nanos * unpaid // side.booked_quantity) if side.booked_quantity else 0
    return Finding(
        reason=Reason.FREE_TIER, amount_nanos=worth, detail=f"{unpaid} of the quantity is on the bill at no cost."
    )


# --- suspense ---------------------------------------------------------------------------------------------------------


def _suspense_pools(sides: Sides) -> dict[LineKey, int]:
    """Return what of each day, project and model was booked without saying for which SKU, under a key without one."""
    return {_pool(key): side.booked_nanos for key, side in sides.by_key.items() if key.sku == UNITEMISED}


def _pool(key: LineKey) -> LineKey:
    return LineKey(day=key.day, project=key.project, model=key.model, sku="")


def _suspense(key: LineKey, side: Side, pools: dict[LineKey, int]) -> int:
    """Take from the pool what a SKU is billed for more than it was booked; the pool's own line is all of it."""
    if key.sku == UNITEMISED:
        return side.excess_nanos
    left = max(0, pools.get(_pool(key), 0))
    taken = min(left, max(0, side.excess_nanos)) if side.quantity_excess > 0 else 0
    pools[_pool(key)] = left - taken
    return taken


# --- late usage -------------------------------------------------------------------------------------------------------


def _late(books: Books, key: LineKey, side: Side) -> Finding:
    """Say what a quantity costs that is missing or too much here, and the other way round on a neighbouring day."""
    moved, days = _moved(books, key, side)
    # At the price it was booked at, where it was: that of the bill may be wrong for reasons of its own.
    nanos, quantity = (side.booked_nanos, side.booked_quantity) if side.booked_quantity else (side.billed_nanos, 0)
    quantity = quantity or whole(side.quantity)
    amount = moved * nanos // quantity if quantity else 0
    detail = f"{abs(moved)} of the quantity is on {' and '.join(days)}."
    return Finding(reason=Reason.LATE_USAGE, amount_nanos=amount, detail=detail)


def _moved(books: Books, key: LineKey, side: Side) -> tuple[int, list[str]]:
    """Return what came here from neighbouring days, below zero what went there, and these days."""
    excess, moved, days = side.quantity_excess, 0, []
    for day in (key.day - _DAY, key.day + _DAY):
        other = books.sides.by_key.get(LineKey(day=day, project=key.project, model=key.model, sku=key.sku))
        against = 0 if other is None else -other.quantity_excess
        if excess * against > 0:
            moved += min(abs(against), abs(excess) - moved)
            days.append(f"{day}")
    return (moved if excess > 0 else -moved), days


# --- price ------------------------------------------------------------------------------------------------------------


def _of_price(books: Books, key: LineKey, side: Side, rest: int) -> Iterable[Finding]:
    quantity = whole(side.quantity - side.doubled_quantity)
    left = side.quantity_excess - _moved(books, key, side)[0]
    if not quantity or abs(left) * 1000 > abs(side.booked_quantity) * _SAME_QUANTITY_PERMILLE:
        return ()
    if side.currencies - {"USD"} and abs(rest) * 1000 <= abs(side.billed_nanos) * _CURRENCY_PERMILLE:
        names = ", ".join(sorted(side.currencies))
        return (Finding(reason=Reason.CURRENCY, amount_nanos=rest, detail=f"Billed in {names}, at its rate."),)
    detail = explain_price(
        books.prices,
        models=sorted(
            one for one in {found.model for found in books.prices.lists()} if books.sku_map.folded(one) == key.model
        ),
        sku=key.sku,
        is_same=lambda sku: books.sku_map.folded(sku) == key.sku,
        billed_nanos=side.billed_nanos - whole(side.doubled),
        booked_nanos=side.booked_nanos,
        quantity=quantity,
        bound_nanos=books.bound(side),
    )
    return (Finding(reason=Reason.PRICE_MISMATCH, amount_nanos=rest, detail=detail),)
