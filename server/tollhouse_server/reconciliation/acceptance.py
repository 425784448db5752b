"""Somebody accepts a difference by name, and tenants are charged for it in proportion to their use."""

from collections.abc import Callable, Iterable
from datetime import date

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.errors import EtagMismatch, WrongState
from tollhouse_server.money import spread
from tollhouse_server.names import BillVarianceName, invalid
from tollhouse_server.reconciliation import use_store, variance_store
from tollhouse_server.reconciliation.dates import days_of_month
from tollhouse_server.reconciliation.map_store import current_rules
from tollhouse_server.reconciliation.sku_map import SkuMap
from tollhouse_server.reconciliation.use_store import BookedUse
from tollhouse_server.reconciliation.variance_store import Share
from tollhouse_server.reconciliation.variances import Variance


async def accept(
    session: AsyncSession,
    name: BillVarianceName,
    *,
    by: str,
    reason: str,
    charges_tenants: bool,
    effective_day: date | None = None,
    version: int | None = None,
) -> tuple[Variance, tuple[Share, ...]]:
    """Accept what is open of a difference; return it with what each tenant is charged.

    The shares follow the use of the same project, SKU and day; where there was none, of the project on that day, else
    in that month. They add up to the amount exactly. Where nobody has used the project nobody can be charged: the
    platform bears it. `effective_day` puts the charge into a later period than that of the use, when that is closed.

    Raises:
        ResourceNotFound: there is no such difference.
        EtagMismatch: it is another one by now.
        WrongState: nothing of it is open.
        InvalidRequest: the charge would be before the use.
        PeriodClosed: the charge would be in a month of a tenant that is closed.
    """
    variance = await variance_store.get_variance(session, name, lock=True)
    if version is not None and variance.version != version:
        raise EtagMismatch(name=str(name))
    if variance.state != "OPEN":
        raise WrongState(name=str(name), state=variance.state, needed="OPEN")
    day = effective_day or variance.line.key.day
    if day < variance.line.key.day:
        raise invalid("effective_date", "must not be before the day of the use")
    shares = await _shares(session, variance) if charges_tenants and variance.open_nanos else ()
    accepted = await variance_store.save_acceptance(session, variance, by=by, reason=reason)
    await variance_store.charge(session, accepted, shares, day=day)
    await variance_store.set_blocking_count(session, variance.month)
    return accepted, shares


async def _shares(session: AsyncSession, variance: Variance) -> tuple[Share, ...]:
    use = await use_store.project_use(session, *days_of_month(variance.month), variance.line.key.project)
    _, sku_map = await current_rules(session)
    for is_counted in _nearest_first(variance, sku_map):
        weights = _weights(one for one in use if is_counted(one))
        if weights:
            parts = spread(variance.open_nanos, weights)
            return tuple(
                Share(tenant_id=tenant, amount_nanos=amount, basis_nanos=weights[tenant])
                for tenant, amount in parts.items()
            )
    return ()


def _nearest_first(variance: Variance, sku_map: SkuMap) -> tuple[Callable[[BookedUse], bool], ...]:
    key = variance.line.key

    def of_day(use: BookedUse) -> bool:
        return use.day == key.day

    def of_sku(use: BookedUse) -> bool:
        return of_day(use) and (sku_map.folded(use.model), sku_map.folded(use.sku)) == (key.model, key.sku)

    return of_sku, of_day, lambda _: True


def _weights(use: Iterable[BookedUse]) -> dict[str, int]:
    """Return what each tenant used, of those who used anything, by id."""
    weights: dict[str, int] = {}
    for one in use:
        weights[one.tenant_id] = weights.get(one.tenant_id, 0) + one.cost_nanos
    return {tenant: weights[tenant] for tenant in sorted(weights) if weights[tenant] > 0}
