"""Limits of every kind: what goes together, what changes, and what the current window shows."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tollhouse.admin.v1 import limits_pb2 as pb
from tollhouse.admin.v1 import tenants_pb2
from tollhouse_server.audit.store import list_events
from tollhouse_server.errors import EtagMismatch, InvalidRequest, ResourceNotFound

from tests.drivers.postgres import TestDatabase
from tests.integration.admin.limits import budget, count, create, dollars, ledger_of, put_counters
from tests.integration.admin.plane import Plane

CALLS_IN_FLIGHT: dict[str, Any] = {"metric": pb.LIMIT_METRIC_CONCURRENCY, "amount": count(5), "window": 0}
ELASTIC: dict[str, Any] = {"mode": pb.LIMIT_MODE_ELASTIC, "overshoot": dollars(5)}


async def update(plane: Plane, *paths: str, **fields: Any) -> pb.Limit:
    """Change limit `cap` of tenant acme."""
    limit = pb.Limit(name="tenants/acme/limits/cap", **fields)
    changed: pb.Limit = await plane.call(pb.UpdateLimitRequest(limit=limit, update_mask=FieldMask(paths=paths)))
    return changed


# --- what goes together -----------------------------------------------------------------------------------------------


async def test_an_elastic_limit_keeps_its_overshoot_and_thresholds(plane: Plane) -> None:
    """What was asked for is read back, in money."""
    await plane.tenant("acme")

    created = await create(plane, **ELASTIC, thresholds=[50, 80, 100])

    read = await plane.call(pb.GetLimitRequest(name=created.name))
    assert (read.mode, read.overshoot, list(read.thresholds)) == (pb.LIMIT_MODE_ELASTIC, dollars(5), [50, 80, 100])
    assert read.current.expected == dollars(0)
    assert read.current.effective_amount == dollars(100)


@pytest.mark.parametrize(("amount", "overshoot"), [(100, 10), (101, 11), (1, 1), (0, 1)])
async def test_an_overshoot_that_is_not_said_is_a_tenth(plane: Plane, amount: int, overshoot: int) -> None:
    """Rounded up, and never nothing."""
    await plane.tenant("acme")

    tokens: dict[str, Any] = {"metric": pb.LIMIT_METRIC_OUTPUT_TOKENS, "amount": count(amount)}
    created = await create(plane, mode=pb.LIMIT_MODE_ELASTIC, **tokens)

    assert created.overshoot == count(overshoot)


async def test_calls_in_flight_are_limited_without_a_window(plane: Plane) -> None:
    """CONCURRENCY has the window TOTAL, said or not, and neither start nor end."""
    await plane.tenant("acme")

    silent = await create(plane, "a-one", **CALLS_IN_FLIGHT)
    said = await create(plane, "a-two", **{**CALLS_IN_FLIGHT, "window": pb.LIMIT_WINDOW_TOTAL})

    assert silent.window == said.window == pb.LIMIT_WINDOW_TOTAL
    assert not silent.current.HasField("start_time") and not silent.current.HasField("reset_time")


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        (budget(**{**CALLS_IN_FLIGHT, "window": pb.LIMIT_WINDOW_MINUTE}), "window.*CONCURRENCY"),
        (budget(**CALLS_IN_FLIGHT, mode=pb.LIMIT_MODE_ELASTIC), "mode.*CONCURRENCY"),
        (budget(**CALLS_IN_FLIGHT, thresholds=[50]), "thresholds.*CONCURRENCY"),
        (budget(window=pb.LIMIT_WINDOW_ROLLING_10_MINUTES, thresholds=[50]), "thresholds.*ROLLING_10_MINUTES"),
        (budget(**{**CALLS_IN_FLIGHT, "amount": dollars(1)}), "amount.units"),
        (budget(overshoot=dollars(5)), "overshoot.*STRICT"),
        (budget(overshoot=dollars(5), mode=pb.LIMIT_MODE_SOFT), "overshoot.*SOFT"),
        (budget(**{**ELASTIC, "overshoot": dollars(0)}), "overshoot.*more than zero"),
        (budget(**{**ELASTIC, "overshoot": dollars(-1)}), "overshoot.*negative"),
        (budget(**{**ELASTIC, "overshoot": count(1)}), "overshoot.money"),
        (budget(**{**ELASTIC, "overshoot": dollars(9_223_372_036)}), "overshoot.*counted"),
        (budget(mode=pb.LIMIT_MODE_ELASTIC, amount=dollars(9_223_372_036)), "amount.*counted"),
        (budget(thresholds=[50, 50]), "thresholds.*ascend"),
        (budget(thresholds=[80, 50]), "thresholds.*ascend"),
    ],
)
async def test_what_does_not_go_together_is_refused(plane: Plane, limit: pb.Limit, problem: str) -> None:
    """The error names the field and the reason."""
    await plane.tenant("acme")

    with pytest.raises(InvalidRequest, match=problem):
        await plane.call(pb.CreateLimitRequest(parent="tenants/acme", limit=limit))


# --- changes ----------------------------------------------------------------------------------------------------------


async def test_a_limit_becomes_elastic_and_strict_again(plane: Plane) -> None:
    """The overshoot comes with the mode, stays while the amount changes, and goes with the mode."""
    await plane.tenant("acme")
    await create(plane)

    elastic = await update(plane, "mode", mode=pb.LIMIT_MODE_ELASTIC)
    wider = await update(plane, "overshoot", overshoot=dollars(20))
    raised = await update(plane, "amount", "thresholds", amount=dollars(500), thresholds=[90])
    strict = await update(plane, "mode", mode=pb.LIMIT_MODE_STRICT)

    assert [one.overshoot for one in (elastic, wider, raised)] == [dollars(10), dollars(20), dollars(20)]
    assert (raised.amount, list(raised.thresholds)) == (dollars(500), [90])
    assert not strict.HasField("overshoot") and not strict.current.HasField("expected")
    assert list((await update(plane, "thresholds")).thresholds) == []


async def test_a_rolling_limit_is_given_no_thresholds_later(plane: Plane) -> None:
    """They would never be reached: no window of it begins anew. Taking away what it may have is no harm."""
    await plane.tenant("acme")
    await create(plane, window=pb.LIMIT_WINDOW_ROLLING_10_MINUTES)

    with pytest.raises(InvalidRequest, match=r"thresholds.*ROLLING_10_MINUTES"):
        await update(plane, "thresholds", thresholds=[50])

    assert list((await update(plane, "thresholds")).thresholds) == []


@pytest.mark.parametrize(
    ("paths", "fields", "problem"),
    [
        (("overshoot",), {"overshoot": dollars(1)}, "overshoot.*STRICT"),
        (("mode",), {}, "mode: is required"),
        (("thresholds",), {"thresholds": [9, 3]}, "thresholds"),
        (("scope",), {"scope": "tenants/acme"}, "'scope' cannot be changed"),
    ],
)
async def test_a_change_that_makes_no_sense_is_refused(
    plane: Plane, paths: tuple[str, ...], fields: dict[str, Any], problem: str
) -> None:
    """And nothing of it is kept."""
    await plane.tenant("acme")
    before = await create(plane)

    with pytest.raises(InvalidRequest, match=problem):
        await update(plane, *paths, **fields)

    assert (await plane.call(pb.GetLimitRequest(name=before.name))).etag == before.etag


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("amount", {"amount": dollars(50)}),
        ("mode", {"mode": pb.LIMIT_MODE_SOFT}),
        ("thresholds", {"thresholds": [75]}),
    ],
)
async def test_a_change_has_the_next_alert_worked_out_anew(
    plane: Plane, fresh_database: TestDatabase, path: str, fields: dict[str, Any]
) -> None:
    """The marks on its counters are taken off with the change, those of other limits stay, and all servers are told."""
    await plane.tenant("acme")
    starts = [datetime(2026, month, 1, tzinfo=UTC) for month in (10, 11)]
    async with ledger_of(fresh_database.root_dsn) as connection:
        for limit in ("cap", "other"):
            await create(plane, limit)
            await put_counters(connection, limit, [(start, 0, 7, 0) for start in starts], alert_at=40)
        epoch = await connection.fetchval("SELECT value FROM epoch WHERE topic = 'limits'")

        await update(plane, path, **fields)
        await update(plane, path, **fields)

        marks = await connection.fetch("SELECT name, alert_at FROM counter JOIN usage_limit USING (limit_id)")
        assert sorted(tuple(row) for row in marks) == [("cap", 0), ("cap", 0), ("other", 40), ("other", 40)]
        # The second change changes nothing, so it tells nobody.
        assert await connection.fetchval("SELECT value FROM epoch WHERE topic = 'limits'") == epoch + 1


async def test_a_mark_that_a_tick_is_about_to_set_is_taken_off_too(plane: Plane, fresh_database: TestDatabase) -> None:
    """The change waits for the tick, and comes after it."""
    await plane.tenant("acme")
    await create(plane)
    async with ledger_of(fresh_database.root_dsn) as connection:
        await put_counters(connection, "cap", [(datetime(2026, 11, 1, tzinfo=UTC), 0, 7, 0)])
        tick = connection.transaction()
        await tick.start()
        await connection.execute("UPDATE counter SET alert_at = 40")

        change = asyncio.create_task(update(plane, "amount", amount=dollars(50)))
        await asyncio.sleep(0.2)
        assert not change.done()
        await tick.commit()
        await change

        assert await connection.fetchval("SELECT alert_at FROM counter") == 0


async def test_two_changes_at_once_leave_a_limit_that_makes_sense(plane: Plane, fresh_database: TestDatabase) -> None:
    """One widens the overshoot while the other ends it: the second to come sees what the first has done."""
    await plane.tenant("acme")
    await create(plane)

    for number in range(8):
        await update(plane, "mode", "overshoot", **ELASTIC)
        both = [
            update(plane, "overshoot", overshoot=dollars(20)),
            update(plane, "mode", mode=pb.LIMIT_MODE_STRICT),
        ]
        await asyncio.gather(*(both if number % 2 else reversed(both)), return_exceptions=True)

        async with ledger_of(fresh_database.root_dsn) as connection:
            kept = await connection.fetchrow("SELECT mode, overshoot FROM usage_limit")
        assert kept is not None and tuple(kept) == ("STRICT", 0)


async def test_a_stale_etag_changes_nothing(plane: Plane) -> None:
    """Neither the limit nor its marks."""
    await plane.tenant("acme")
    created = await create(plane)
    await update(plane, "amount", amount=dollars(50))

    with pytest.raises(EtagMismatch):
        await update(plane, "amount", amount=dollars(70), etag=created.etag)

    assert (await plane.call(pb.GetLimitRequest(name=created.name))).amount == dollars(50)


async def test_a_deleted_limit_cannot_be_changed(plane: Plane) -> None:
    """It is as if it had never been."""
    await plane.tenant("acme")
    created = await create(plane)
    await plane.call(pb.DeleteLimitRequest(name=created.name))

    with pytest.raises(ResourceNotFound):
        await update(plane, "amount", amount=dollars(70))


# --- the current window -----------------------------------------------------------------------------------------------


async def test_a_rolling_limit_shows_the_minutes_that_count(plane: Plane, fresh_database: TestDatabase) -> None:
    """The running one and the ten before; older ones no more."""
    await plane.tenant("acme")
    await create(plane, window=pb.LIMIT_WINDOW_ROLLING_10_MINUTES, metric=pb.LIMIT_METRIC_REQUESTS, amount=count(50))
    async with ledger_of(fresh_database.root_dsn) as connection:
        now: datetime = await connection.fetchval("SELECT date_trunc('minute', clock_timestamp())")
        # Should the minute change under way, all that counts is one minute older; 9 of them count in both.
        minutes = [(now - timedelta(minutes=age), 1, 10, 0) for age in (0, 1, 9, 12, 13, 600)]
        await put_counters(connection, "cap", minutes)

    shown = (await plane.call(pb.GetLimitRequest(name="tenants/acme/limits/cap"))).current

    assert (shown.held, shown.settled) == (count(3), count(30))
    assert (shown.reset_time.seconds - shown.start_time.seconds) == 21 * 60


async def test_an_elastic_limit_shows_what_is_expected(plane: Plane, fresh_database: TestDatabase) -> None:
    """Beside the worst case that is held."""
    await plane.tenant("acme")
    await create(plane, **ELASTIC, window=pb.LIMIT_WINDOW_TOTAL)
    async with ledger_of(fresh_database.root_dsn) as connection:
        await put_counters(connection, "cap", [(datetime(1970, 1, 1, tzinfo=UTC), 9, 5, 4)])

    shown = (await plane.call(pb.GetLimitRequest(name="tenants/acme/limits/cap"))).current

    assert (shown.held, shown.settled, shown.expected) == (dollars(0, 9), dollars(0, 5), dollars(0, 4))


async def test_a_fiscal_month_begins_on_the_tenant_s_day(plane: Plane) -> None:
    """In his time zone; a change of the day moves it at once."""
    await plane.tenant("acme")
    await create(plane, window=pb.LIMIT_WINDOW_FISCAL_MONTH)
    tenant = tenants_pb2.Tenant(name="tenants/acme", fiscal_month_start_day=17, time_zone="Asia/Kolkata")
    await plane.call(tenants_pb2.UpdateTenantRequest(tenant=tenant))

    shown = (await plane.call(pb.GetLimitRequest(name="tenants/acme/limits/cap"))).current

    kolkata = timedelta(hours=5, minutes=30)
    start, end = shown.start_time.ToDatetime() + kolkata, shown.reset_time.ToDatetime() + kolkata
    assert (start.day, start.hour, start.minute, end.day, end.hour) == (17, 0, 0, 17, 0)
    assert start <= datetime.now(UTC).replace(tzinfo=None) + kolkata < end


async def test_a_page_of_limits_is_one_question(plane: Plane) -> None:
    """However many limits it has."""
    await plane.tenant("acme")
    for number in range(12):
        await create(plane, f"l-{number}", window=pb.LIMIT_WINDOW_DAY)
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "set_config" not in statement and any(one in statement for one in ("usage_limit", "counter", "tenant")):
            statements.append(statement)

    await plane.call(pb.ListLimitsRequest(parent="tenants/acme"))
    event.listen(Engine, "before_cursor_execute", note)
    try:
        answer = await plane.call(pb.ListLimitsRequest(parent="tenants/acme"))
    finally:
        event.remove(Engine, "before_cursor_execute", note)

    assert (len(answer.limits), len(statements)) == (12, 1)


# --- the tenant's fiscal month ----------------------------------------------------------------------------------------


async def test_the_start_of_fiscal_months_is_kept_and_audited(plane: Plane) -> None:
    """The calendar month unless something else is said."""
    plain = await plane.call(tenants_pb2.CreateTenantRequest(tenant_id="bolt"))
    await plane.tenant("acme")
    tenant = tenants_pb2.Tenant(name="tenants/acme", fiscal_month_start_day=26)

    changed = await plane.call(tenants_pb2.UpdateTenantRequest(tenant=tenant))

    assert (plain.fiscal_month_start_day, changed.fiscal_month_start_day) == (1, 26)
    async with plane.database.transaction() as session:
        last = (await list_events(session, "acme"))[-1]
    assert last.before is not None and last.before["fiscalMonthStartDay"] == 1
    assert last.after is not None and last.after["fiscalMonthStartDay"] == 26


@pytest.mark.parametrize("day", [-1, 0, 29])
async def test_a_day_that_some_month_lacks_is_refused(plane: Plane, day: int) -> None:
    """The error names the field."""
    await plane.tenant("acme")
    tenant = tenants_pb2.Tenant(name="tenants/acme", fiscal_month_start_day=day)
    request = tenants_pb2.UpdateTenantRequest(tenant=tenant, update_mask=FieldMask(paths=["fiscal_month_start_day"]))

    with pytest.raises(InvalidRequest, match="fiscal_month_start_day"):
        await plane.call(request)
