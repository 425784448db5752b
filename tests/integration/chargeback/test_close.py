"""A month of tenant acme from preview to close, and everything that it refuses afterwards."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from google.protobuf.message import Message
from sqlalchemy.exc import DBAPIError
from tollhouse.admin.v1 import chargeback_pb2 as pb
from tollhouse_admin.rendering import as_json
from tollhouse_admin.statement_proofs import StatementVerifier, read_statement, read_statement_keys
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.services.chargeback_service import ChargebackService
from tollhouse_server.api.values import money
from tollhouse_server.database.integrity import CLOSED, refusal_of
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import PeriodClosed, PeriodObstructed, SecondPersonNeeded, WrongState
from tollhouse_server.reporting.rollup_store import build_next_day
from tollhouse_server.vault.signing import Purpose, SigningKey

from tests.drivers.books import Books, in_project
from tests.drivers.pages import all_pages
from tests.drivers.receipts import KEY, KeyInMemory
from tests.integration.api.callers import PAGES, ROBOT, by

MAY = datetime(2026, 5, 29, tzinfo=UTC)
"""Near the end of the month: each day from the first record on is rolled up."""
NAME = "tenants/acme/periods/2026-05"
ANN, BOB = (replace(ROBOT, principal_id=name) for name in ("ann", "bob"))
CRM = in_project("crm", "sales")


@pytest.fixture
async def service(books: Books) -> AsyncIterator[ChargebackService]:
    """The service over the books of acme, with a month that is over and rolled up."""
    await books.add_tenant()
    await books.book(60, at=MAY, labels={"feature": "search"})
    await books.book(40, at=MAY, scope=CRM)
    key = SigningKey(KeyInMemory(), KEY, purpose=Purpose.STATEMENTS)
    yield ChargebackService(books.database, Mutations(books.database, b"fingerprints"), PAGES, key)


async def roll_up(books: Books) -> None:
    """Roll up all of May and the first day of June."""
    day: Any = True
    while day is not None:
        async with books.database.transaction() as session:
            day = await build_next_day(session, "acme", datetime(2026, 6, 2, tzinfo=UTC))


async def closed(books: Books, service: ChargebackService) -> pb.ClosePeriodResponse:
    """Preview and close May."""
    await roll_up(books)
    await service.preview_period(pb.PreviewPeriodRequest(name=NAME), by(ANN))
    return await service.close_period(pb.ClosePeriodRequest(name=NAME), by(BOB))


def adjustment(units: int, **changes: Any) -> pb.CreateAdjustmentRequest:
    """Build a request for an adjustment of so many dollars."""
    values: dict[str, Any] = {"amount": money(units * 10**9), "reason": "double booking"} | changes
    return pb.CreateAdjustmentRequest(parent="tenants/acme", adjustment=pb.Adjustment(**values))


async def exported(service: ChargebackService, parent: str = "tenants/acme", form: str = "json") -> bytes:
    """Return the statement of May as a document."""
    request = pb.ExportStatementRequest(parent=parent, month="2026-05", format=form)
    return b"".join([piece.content async for piece in service.export_statement(request, by(ANN))])


async def test_a_month_is_previewed_closed_and_its_statements_stay_what_was_sealed(
    books: Books, service: ChargebackService
) -> None:
    """The tenant and each department have a seal; what is stated afterwards is the sealed text."""
    before = json.loads(await exported(service))["statement"]

    answer = await closed(books, service)

    assert answer.period.state == pb.Period.STATE_CLOSED
    assert [seal.scope.rpartition("/")[2] for seal in answer.seals] == ["acme", "research", "sales", "vision"]
    assert {seal.tree_size for seal in answer.seals} == {4}
    after = json.loads(await exported(service))
    assert after["statement"] == before | {"state": "CLOSED"}
    assert after["seal"]["sha256"] == answer.period.sha256 == answer.seals[0].sha256
    assert base64.b64decode(after["seal"]["signature"])
    listed = await service.list_seals(pb.ListSealsRequest(parent="tenants/acme", month="2026-05"), by(ANN))
    assert list(listed.seals) == list(answer.seals)
    stated = await service.get_statement(
        pb.GetStatementRequest(parent="tenants/acme/departments/sales", month="2026-05"), by(ANN)
    )
    assert (stated.totals.cost, stated.seal.closer) == (money(40), BOB.name)


async def test_a_dry_run_says_what_would_be_sealed_and_all_that_stands_against_it(
    books: Books, service: ChargebackService
) -> None:
    """Open suspense, days that are not rolled up, no preview: all at once, and nothing is changed."""
    await books.suspend(at=MAY, cost_nanos=7)

    answer = await service.close_period(pb.ClosePeriodRequest(name=NAME, validate_only=True), by(ANN))

    kinds = [pb.PeriodObstacle.Kind.Name(one.kind).removeprefix("KIND_") for one in answer.period.obstacles]
    assert kinds == ["NOT_PREVIEWED", "NOT_ROLLED_UP", "SUSPENSE"]
    assert (answer.period.obstacles[2].count, answer.period.obstacles[2].amount) == (1, money(7))
    assert len(answer.seals) == 4
    assert (await service.get_period(pb.GetPeriodRequest(name=NAME), by(ANN))).state == pb.Period.STATE_OPEN


async def test_open_suspense_and_a_month_that_runs_block_the_close(books: Books, service: ChargebackService) -> None:
    """A month with something unknown in it is not final."""
    await books.suspend(at=MAY)
    current = f"tenants/acme/periods/{datetime.now(UTC):%Y-%m}"

    with pytest.raises(PeriodObstructed):
        await closed(books, service)
    with pytest.raises(PeriodObstructed):
        await service.preview_period(pb.PreviewPeriodRequest(name=current), by(ANN))


async def test_nothing_is_closed_without_preview_or_twice(books: Books, service: ChargebackService) -> None:
    """The steps have an order, and a preview can be taken back."""
    await roll_up(books)
    with pytest.raises(WrongState):
        await service.close_period(pb.ClosePeriodRequest(name=NAME), by(ANN))
    await service.preview_period(pb.PreviewPeriodRequest(name=NAME), by(ANN))
    await service.reopen_period(pb.ReopenPeriodRequest(name=NAME), by(ANN))

    await closed(books, service)

    for act, request in (
        (service.close_period, pb.ClosePeriodRequest(name=NAME)),
        (service.reopen_period, pb.ReopenPeriodRequest(name=NAME)),
        (service.preview_period, pb.PreviewPeriodRequest(name=NAME)),
    ):
        with pytest.raises(PeriodClosed):
            await refused(act, request)


async def refused(act: Any, request: Message) -> None:
    """Ask for a step."""
    await act(request, by(ANN))


async def test_who_has_entered_an_adjustment_does_not_close_its_month(books: Books, service: ChargebackService) -> None:
    """The close is a second person's look at it."""
    await service.create_adjustment(adjustment(-1, month="2026-05"), by(BOB))

    with pytest.raises(SecondPersonNeeded):
        await closed(books, service)
    answer = await service.close_period(pb.ClosePeriodRequest(name=NAME), by(ANN))

    assert answer.period.closer == ANN.name


async def test_an_adjustment_of_a_closed_month_stands_in_a_later_one_with_its_reason(
    books: Books, service: ChargebackService
) -> None:
    """The closed month refuses it; the next statement has it, in its charge and department."""
    await closed(books, service)
    sales = "tenants/acme/departments/sales"
    with pytest.raises(PeriodClosed):
        await service.create_adjustment(adjustment(-3, month="2026-05"), by(ANN))

    entered = await service.create_adjustment(adjustment(-3, for_month="2026-05", department=sales), by(ANN))

    month = f"{datetime.now(UTC):%Y-%m}"
    stated = await service.get_statement(pb.GetStatementRequest(parent=sales, month=month), by(ANN))
    (entry,) = stated.entries
    assert (entered.month, entry.for_month, entry.reason) == (month, "2026-05", "double booking")
    assert (entry.rule, entry.amount, stated.totals.charge) == (entered.name, money(-3 * 10**9), money(-3 * 10**9))
    research = pb.GetStatementRequest(parent="tenants/acme/departments/research", month=month)
    assert not (await service.get_statement(research, by(ANN))).entries
    listed = await service.list_adjustments(pb.ListAdjustmentsRequest(parent="tenants/acme"), by(ANN))
    assert list(listed.adjustments) == [entered]


_ALLOWED_OTHERWISE = ("UPDATE billing", "INSERT INTO adj", "INSERT INTO sealed", "INSERT INTO usage_roll")

_RECORD = """
INSERT INTO usage_record SELECT (r).* FROM (
    SELECT jsonb_populate_record(u, jsonb_build_object('attempt_id', gen_random_uuid())) AS r FROM usage_record u
) AS copy
"""
_BY_HAND = (
    _RECORD,
    "UPDATE usage_record SET cost_nanos = 0",
    "DELETE FROM usage_record",
    "UPDATE billing_period SET state = 'OPEN'",
    "DELETE FROM billing_period",
    "UPDATE sealed_statement SET document = ''",
    "INSERT INTO sealed_statement SELECT tenant_id, month, 'x', document, sha256, signature, key_version, tree_size,"
    " leaf_index, path FROM sealed_statement",
    "DELETE FROM sealed_statement",
    "INSERT INTO adjustment (tenant_id, adjustment_id, month, amount_nanos, reason, created_by)"
    " VALUES ('acme', 'x', '2026-05', 1, '', '')",
    "INSERT INTO usage_rollup SELECT tenant_id, day_start, department_path, project_id, 'other', tier, model,"
    " record_count, is_booked, calls, input_tokens, output_tokens, images, cost_nanos, cached_tokens, tool_use_tokens,"
    " thoughts_tokens FROM usage_rollup",
    "INSERT INTO usage_rollup_label SELECT tenant_id, day_start, department_path, label, 'x', calls, cost_nanos"
    " FROM usage_rollup_label",
    "DELETE FROM closed_month",
    "SELECT set_config('session_replication_role', 'replica', true)",
    "ALTER TABLE usage_record_2026_05 DISABLE TRIGGER ALL",
    "DROP TRIGGER closed_month ON adjustment",
)


@pytest.mark.parametrize("place", ["2026_05", "default"])
async def test_a_closed_month_refuses_every_change_by_sql_too(
    books: Books, service: ChargebackService, place: str
) -> None:
    """By either role of the application, whichever tenant its session names, wherever the month's records are."""
    if place != "default":
        await books.view.connection.execute("CREATE TABLE moved AS TABLE usage_record")
        await books.view.connection.execute("DELETE FROM usage_record")
        await books.view.connection.execute("SELECT create_usage_partition('2026-05-01')")
        await books.view.connection.execute("INSERT INTO usage_record SELECT * FROM moved")
    await closed(books, service)

    for statement in _BY_HAND:
        for role in ("tollhouse_control", "tollhouse_ledger"):
            for tenant in ("acme", "*", "other"):
                assert await by_hand(books, statement, role=role, tenant=tenant) != "done", (statement, role, tenant)

    # The ledger may write records of all tenants, whichever its session names: there it is the lock that refuses.
    assert {await by_hand(books, _RECORD, role="tollhouse_ledger", tenant=one) for one in ("acme", "*", "x")} == {
        CLOSED
    }
    for statement in (one for one in _BY_HAND if one.startswith(_ALLOWED_OTHERWISE)):
        assert await by_hand(books, statement, role="tollhouse_control", tenant="acme") == CLOSED, statement
    async with books.database.transaction() as session:
        (row,) = (await run_sql(session, "SELECT count(*) AS n, sum(cost_nanos) AS nanos FROM usage_record")).all()
    assert (row.n, row.nanos) == (2, 100)


async def test_a_partition_made_after_the_close_is_guarded_too(books: Books, service: ChargebackService) -> None:
    """The application may make partitions; none of them is a way into a closed month."""
    await closed(books, service)
    execute = books.view.connection.execute
    await execute("CREATE TABLE kept AS TABLE usage_record")
    await execute("DELETE FROM usage_record")
    create = "SELECT create_usage_partition('2026-05-01')"
    assert await by_hand(books, create, role="tollhouse_ledger", tenant="acme") == "done"

    with pytest.raises(asyncpg.PostgresError) as refusal:
        await execute("INSERT INTO usage_record SELECT * FROM kept")

    assert refusal.value.sqlstate == CLOSED


async def by_hand(books: Books, statement: str, *, role: str, tenant: str) -> str:
    """Run a statement as one of the application's roles; return `done`, `nothing` or the SQLSTATE that refused it."""
    try:
        async with books.database.transaction() as session:
            await run_sql(session, f"SET LOCAL ROLE {role}")
            await run_sql(session, "SELECT set_config('tollhouse.tenant', :tenant, true)", {"tenant": tenant})
            result = await run_sql(session, statement)
            return "done" if result.rowcount else "nothing"
    except DBAPIError as error:
        return refusal_of(error)[0]


async def test_records_of_other_tenants_and_of_later_moments_still_come(
    books: Books, service: ChargebackService
) -> None:
    """The guard of a partition is about the closed month of its own tenant."""
    await books.add_tenant("globex")
    await closed(books, service)

    await books.book(5)
    moved = _RECORD.replace("gen_random_uuid())", "gen_random_uuid(), 'tenant_id', 'globex')")
    await books.view.connection.execute(moved)

    assert await books.view.connection.fetchval("SELECT count(*) FROM usage_record") == 6


async def test_months_are_listed_from_the_first_record_on(books: Books, service: ChargebackService) -> None:
    """The newest first, in pages."""
    await closed(books, service)
    request = pb.ListPeriodsRequest(parent="tenants/acme", page_size=3)

    listed = await all_pages(lambda asked: service.list_periods(asked, by(ANN)), request, "periods")

    found = [f"{one.name.rpartition('/')[2]} {one.state}" for one in listed]
    assert found[0] == f"{datetime.now(UTC):%Y-%m} {pb.Period.STATE_OPEN}"
    assert found[-1] == f"2026-05 {pb.Period.STATE_CLOSED}"
    assert sorted(found, reverse=True) == found


async def test_adjustments_are_listed_page_by_page(books: Books, service: ChargebackService) -> None:
    """The newest first, none twice and none left out."""
    entered = [await service.create_adjustment(_adjustment(f"c-{number}"), by(ROBOT)) for number in range(3)]
    request = pb.ListAdjustmentsRequest(parent="tenants/acme", page_size=1)

    listed = await all_pages(lambda asked: service.list_adjustments(asked, by(ANN)), request, "adjustments")

    assert listed == entered[::-1]


def _adjustment(name: str) -> pb.CreateAdjustmentRequest:
    adjustment = pb.Adjustment(amount=money(-1), reason="outage")
    return pb.CreateAdjustmentRequest(parent="tenants/acme", adjustment_id=name, adjustment=adjustment)


async def test_a_closed_statement_is_checked_and_recomputed_without_the_server(
    books: Books, service: ChargebackService, tmp_path: Path
) -> None:
    """By digest, signature and sums, and from records; what was changed is found."""
    await closed(books, service)
    keys = as_json(await service.get_statement_keys(pb.GetStatementKeysRequest(), by(ANN)))
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    for parent in ("tenants/acme", "tenants/acme/departments/research"):
        (tmp_path / "statement.json").write_bytes(await exported(service, parent))
        asked = pb.ExportStatementRecordsRequest(parent=parent, month="2026-05")
        records = b"".join([piece.content async for piece in service.export_statement_records(asked, by(ANN))])
        (tmp_path / "records.csv").write_bytes(records)

        assert wrong(tmp_path) == []
        (tmp_path / "records.csv").write_bytes(records.replace(b",60,", b",61,"))
        assert set(wrong(tmp_path)) > {"cost from records", "cost by model from records", "lines from records"}
        (tmp_path / "records.csv").write_bytes(records.replace(b'""search""', b'""found""'))
        assert wrong(tmp_path) == ["cost by label from records"]
        (tmp_path / "records.csv").write_bytes(records.replace(b"2026-05-29T", b"2026-05-30T"))
        assert wrong(tmp_path) == ["cost by day from records"]
        changed = (await exported(service, parent)).replace(b'"cost_nanos":60', b'"cost_nanos":61')
        (tmp_path / "statement.json").write_bytes(changed)
        assert "digest" in wrong(tmp_path)
        forged = json.loads(changed)
        text = json.dumps(forged["statement"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        forged["seal"]["sha256"] = hashlib.sha256(text.encode()).hexdigest()
        (tmp_path / "statement.json").write_text(json.dumps(forged))
        assert "signature" in wrong(tmp_path)


def wrong(directory: Path) -> list[str]:
    """Return which checks fail."""
    keys = read_statement_keys(directory / "keys.json")
    verifier = StatementVerifier(read_statement(directory / "statement.json"), keys)
    checks = [*verifier.checks(), *verifier.against_records(directory / "records.csv")]
    return [check.what for check in checks if not check.is_right]
