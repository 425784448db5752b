"""Reports over records that went through the real ledger."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from tollhouse_server.errors import InvalidRequest, ResourceNotFound
from tollhouse_server.ledger.terms import RecordKind
from tollhouse_server.names import Scope, parse_scope
from tollhouse_server.pricing.price import Line
from tollhouse_server.pricing.skus import Unit
from tollhouse_server.pricing.usage import Tokens, Usage
from tollhouse_server.reporting import reports, store
from tollhouse_server.reporting.periods import Period, month_period
from tollhouse_server.reporting.questions import Question
from tollhouse_server.reporting.reports import MonthReport, Summary, month_report, usage_summary
from tollhouse_server.reporting.sums import UNITEMISED, Dimension, Sums

from tests.drivers.books import Books, in_project, settlement

ACME = parse_scope("tenants/acme")
RESEARCH = parse_scope("tenants/acme/departments/research")
SALES = parse_scope("tenants/acme/departments/sales")
LABELS = parse_scope("tenants/acme/departments/vision/projects/labels")
BERLIN = ZoneInfo("Europe/Berlin")
MAY = datetime(2026, 5, 15, tzinfo=UTC)
CRM = in_project("crm", "sales")
INPUT = Line(sku="input_text", quantity=9, unit=Unit.TOKEN, nanos_per_million=4_444_444, cost_nanos=40)
OUTPUT = Line(sku="output_text", quantity=11, unit=Unit.TOKEN, nanos_per_million=1_818_182, cost_nanos=20)


async def report(
    books: Books, scope: Scope = ACME, month: str = "2026-05", by: Sequence[Dimension] = (Dimension.MODEL,)
) -> MonthReport:
    """Make a month report."""
    async with books.database.transaction() as session:
        await store.begin_snapshot(session)
        return await month_report(session, scope, month=month, dimensions=by)


async def summary(books: Books, *by: Dimension, scope: Scope = ACME) -> Summary:
    """Sum up the year 2026."""
    period = Period(start=datetime(2026, 1, 1, tzinfo=UTC), end=datetime(2027, 1, 1, tzinfo=UTC))
    async with books.database.transaction() as session:
        return await usage_summary(session, scope, period, dimensions=by, zone=ZoneInfo("UTC"))


async def test_a_month_is_cut_at_midnight_of_the_tenants_time_zone(books: Books) -> None:
    """March in Berlin: from 23:00 UTC in winter time to 22:00 UTC in summer time, end exclusive."""
    await books.add_tenant(time_zone="Europe/Berlin")
    start, end = datetime(2026, 3, 1, tzinfo=BERLIN), datetime(2026, 4, 1, tzinfo=BERLIN)
    moment = timedelta(microseconds=1)
    await books.book(1, at=(start.astimezone(UTC) - moment))
    await books.book(10, at=start)
    await books.book(100, at=(end.astimezone(UTC) - moment))
    await books.book(1000, at=end)

    march = await report(books, month="2026-03")

    assert march.totals.cost_nanos == 110
    assert (march.period.start, march.period.end) == (start, end)


async def test_days_are_the_tenants_own_over_both_changes_of_the_clocks(books: Books) -> None:
    """29 March has 23 hours, 25 October has 25, with 02:30 twice."""
    await books.add_tenant(time_zone="Europe/Berlin")
    for at in (
        datetime(2026, 3, 29, 0, 30, tzinfo=BERLIN),
        datetime(2026, 3, 29, 23, 59, 59, tzinfo=BERLIN),
        datetime(2026, 3, 30, 0, 0, tzinfo=BERLIN),
        datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN),
        datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
        datetime(2026, 10, 25, 23, 59, 59, tzinfo=BERLIN),
    ):
        await books.book(at=at)

    march = await report(books, month="2026-03", by=[Dimension.DAY])
    october = await report(books, month="2026-10", by=[Dimension.DAY])

    assert [(line.keys[Dimension.DAY], line.calls) for line in march.lines] == [
        (date(2026, 3, 29), 2),
        (date(2026, 3, 30), 1),
    ]
    assert [(line.keys[Dimension.DAY], line.calls) for line in october.lines] == [(date(2026, 10, 25), 3)]


async def test_a_department_includes_what_is_below_it_and_nothing_beside_it(books: Books) -> None:
    """Research has vision's calls, sales has not."""
    await books.add_tenant()
    await books.book(1, at=MAY)
    await books.book(10, at=MAY, scope=in_project("papers", "research"))
    await books.book(100, at=MAY, scope=CRM)

    costs = [(await report(books, scope)).totals.cost_nanos for scope in (RESEARCH, LABELS, SALES, ACME)]

    assert costs == [11, 1, 100, 111]


async def test_a_project_is_found_only_in_its_own_department(books: Books) -> None:
    """Who may see sales learns nothing by naming vision's project below it."""
    await books.add_tenant()
    await books.book(at=MAY)

    wrong = await report(books, parse_scope("tenants/acme/departments/sales/projects/labels"))

    assert (wrong.totals, wrong.lines) == (Sums(), ())


async def test_a_moved_department_keeps_its_history_where_it_was_booked(books: Books) -> None:
    """Old calls stay with research, new ones count for sales, and the tenant's total does not change."""
    await books.add_tenant()
    await books.book(1, at=MAY)
    await books.view.connection.execute(
        "UPDATE department SET parent_id = 'sales', path = 'sales.vision' WHERE department_id = 'vision'"
    )
    await books.book(10, at=MAY, scope=in_project("labels", "sales", "vision"))

    costs = [(await report(books, scope)).totals.cost_nanos for scope in (RESEARCH, SALES, ACME)]

    assert costs == [1, 10, 11]


async def test_another_tenant_with_the_same_names_is_never_counted(books: Books) -> None:
    """Same departments, same project, same month: each sees its own."""
    await books.add_tenant()
    await books.add_tenant("other")
    await books.book(1, at=MAY)
    await books.book(10, at=MAY, scope=in_project("labels", "research", "vision", tenant="other"))

    acme = await report(books, LABELS, by=[Dimension.PROJECT])
    other = await report(books, parse_scope("tenants/other/departments/research"), by=[Dimension.PROJECT])

    assert [(line.keys[Dimension.PROJECT], line.cost_nanos) for line in acme.lines] == [(str(LABELS), 1)]
    assert [(line.keys[Dimension.PROJECT], line.cost_nanos) for line in other.lines] == [
        ("tenants/other/departments/vision/projects/labels", 10)
    ]


async def test_a_month_without_records_is_zero_and_has_no_lines(books: Books) -> None:
    """Nothing is not an error, with and without SKUs."""
    await books.add_tenant()

    empty = await report(books)
    empty_skus = await report(books, by=[Dimension.SKU])

    assert (empty.totals, empty.lines) == (empty_skus.totals, empty_skus.lines) == (Sums(), ())


async def test_an_unknown_tenant_has_no_report(books: Books) -> None:
    """A month cannot be cut without a time zone."""
    with pytest.raises(ResourceNotFound):
        await report(books, parse_scope("tenants/nobody"))


async def test_sums_are_exact_beyond_what_a_float_or_a_bigint_holds(books: Books) -> None:
    """Three times 2^62 + 1 nano-dollars is neither a double nor 64 bits wide."""
    await books.add_tenant()
    line = Line(sku="input_text", quantity=2**53 + 1, unit=Unit.TOKEN, nanos_per_million=1, cost_nanos=2**62 + 1)
    for _ in range(3):
        await books.book(2**62 + 1, at=MAY, lines=[line])

    totals = (await report(books)).totals
    (by_sku,) = (await report(books, by=[Dimension.SKU])).lines

    assert totals.cost_nanos == by_sku.cost_nanos == 3 * 2**62 + 3
    assert by_sku.quantity == 3 * 2**53 + 3


async def test_lines_by_sku_add_up_to_the_total(books: Books) -> None:
    """Calls in suspense have no priced lines, so their cost stands on a line of its own."""
    await books.add_tenant()
    await books.book(60, at=MAY, lines=[INPUT, OUTPUT])
    await books.book(60, at=MAY, lines=[INPUT, OUTPUT])
    await books.suspend(at=MAY, cost_nanos=7)

    month = await report(books, by=[Dimension.DEPARTMENT, Dimension.SKU])

    found = [(line.keys[Dimension.SKU], line.quantity, line.calls, line.cost_nanos) for line in month.lines]
    assert found == [("input_text", 18, 2, 80), ("output_text", 22, 2, 40), (UNITEMISED, 0, 1, 7)]
    assert sum(line.cost_nanos for line in month.lines) == month.totals.cost_nanos == 127
    assert {line.keys[Dimension.DEPARTMENT] for line in month.lines} == {"tenants/acme/departments/vision"}


async def test_what_is_in_suspense_is_counted_and_shown_apart(books: Books) -> None:
    """Booked at its ceiling, one call, until its outcome is known."""
    await books.add_tenant()
    await books.book(60, at=MAY)
    await books.suspend(at=MAY, cost_nanos=100)

    totals = (await report(books)).totals

    assert (totals.calls, totals.cost_nanos) == (2, 160)
    assert (totals.suspense_calls, totals.suspense_nanos) == (1, 100)


async def test_a_resolved_suspense_counts_once_at_what_it_really_cost(books: Books) -> None:
    """Booking and correction add up to the call, in money, tokens and SKUs; nothing is unknown any more."""
    await books.add_tenant()
    reservation = await books.suspend(cost_nanos=100)
    await books.process.ledger.settle(reservation, settlement(60, lines=[INPUT, OUTPUT]))
    current = ""

    month = await report(books, month=current, by=[Dimension.SKU])

    assert month.totals == Sums(calls=1, input_tokens=9, output_tokens=11, cost_nanos=60)
    assert [(line.keys[Dimension.SKU], line.calls, line.cost_nanos) for line in month.lines] == [
        ("input_text", 1, 40),
        ("output_text", 1, 20),
    ]


async def test_a_correction_counts_in_the_month_in_which_it_was_booked(books: Books) -> None:
    """History does not change: May stays as it was, June has the difference."""
    await books.add_tenant()
    reservation = await books.suspend(cost_nanos=100)
    await books.process.ledger.settle(reservation, settlement(60))
    await books.view.connection.execute("UPDATE usage_record SET settled_at = $1 WHERE kind = 'SUSPENSE'", MAY)
    await books.view.connection.execute(
        "UPDATE usage_record SET settled_at = $1 WHERE kind = 'ADJUSTMENT'", MAY + timedelta(days=31)
    )

    may, june = await report(books), await report(books, month="2026-06")

    assert (may.totals.calls, may.totals.cost_nanos, june.totals.calls, june.totals.cost_nanos) == (1, 100, 0, -40)
    assert [(line.calls, line.cost_nanos) for line in june.lines] == [(0, -40)]


async def test_a_report_is_one_view_of_the_ledger_while_calls_go_on(books: Books) -> None:
    """What is booked between its two queries is in neither, so that lines and totals agree."""
    await books.add_tenant()
    await books.book(60, at=MAY, lines=[INPUT, OUTPUT])
    question = Question(scope=ACME, period=month_period("2026-05", ZoneInfo("UTC")), dimensions=(Dimension.SKU,))

    async with books.database.transaction() as session:
        await store.begin_snapshot(session)
        sums = await store.sum_usage(session, question.undivided(), most=0)
        await books.book(60, at=MAY, lines=[INPUT, OUTPUT])
        lines = await store.sum_skus(session, question, most=10)

    assert sums.total.cost_nanos == sum(line.cost_nanos for line in lines) == 60


async def test_refused_attempts_make_no_line(books: Books) -> None:
    """They cost nothing and are no calls."""
    await books.add_tenant()
    await books.book(at=MAY, kind=RecordKind.REFUSED, model="gemini-busy")
    await books.book(at=MAY)

    month = await report(books)

    assert [line.keys[Dimension.MODEL] for line in month.lines] == ["gemini-3.5-flash"]
    assert month.totals.calls == 1


async def test_lines_are_ordered_by_the_dimensions_as_they_were_asked_for(books: Books) -> None:
    """Tier before model, each in the order of its names."""
    await books.add_tenant()
    for tier, model in (("pro", "a"), ("flash", "c"), ("flash", "b")):
        await books.book(at=MAY, tier=tier, model=model)

    month = await report(books, by=[Dimension.TIER, Dimension.MODEL])

    assert [tuple(line.keys.values()) for line in month.lines] == [("flash", "b"), ("flash", "c"), ("pro", "a")]


async def test_a_split_into_too_many_lines_is_refused_not_cut(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that does not add up is worse than none."""
    monkeypatch.setattr(reports, "MOST_LINES", 1)
    await books.add_tenant()
    await books.book(at=MAY, model="a", lines=[INPUT, OUTPUT])
    await books.book(at=MAY, model="b")

    for by in ([Dimension.MODEL], [Dimension.SKU]):
        with pytest.raises(InvalidRequest):
            await report(books, by=by)


async def test_a_summary_has_its_dearest_groups_first_and_everything_in_its_total(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is beyond the last group is in the total only."""
    monkeypatch.setattr(reports, "MOST_GROUPS", 2)
    await books.add_tenant()
    for cost, model in ((1, "cheap"), (100, "dear"), (10, "middling")):
        await books.book(cost, at=MAY, model=model)

    summed = await summary(books, Dimension.MODEL)

    assert [group.keys[Dimension.MODEL] for group in summed.groups] == ["dear", "middling"]
    assert (summed.total.calls, summed.total.cost_nanos) == (3, 111)


async def test_a_summary_splits_by_every_dimension_at_once(books: Books) -> None:
    """Each key is what it is called by elsewhere; days are those of the zone asked for."""
    await books.add_tenant()
    await books.book(at=MAY)
    dimensions = [one for one in Dimension if one not in (Dimension.SKU, Dimension.DEPARTMENT_PATH)]

    (group,) = (await summary(books, *dimensions)).groups

    assert [str(key) for key in group.keys.values()] == [
        "tenants/acme/departments/vision",
        str(LABELS),
        "k1",
        "flash",
        "gemini-3.5-flash",
        "2026-05-15",
    ]


async def test_a_summary_tells_cached_tool_use_and_thinking_tokens_apart(books: Books) -> None:
    """They are read from each record's usage, whatever the modality."""
    await books.add_tenant()
    usage = Usage(
        prompt=Tokens(text=100, image=50),
        cached=Tokens(text=30, image=5),
        tool_use=Tokens(text=7),
        candidates=Tokens(text=20),
        thoughts_tokens=4,
        images=1,
    )
    await books.book(at=MAY, usage=usage)
    await books.book(at=MAY, usage=usage)

    total = (await summary(books)).total

    assert (total.input_tokens, total.output_tokens, total.images) == (314, 48, 2)
    assert (total.cached_tokens, total.tool_use_tokens, total.thoughts_tokens) == (70, 14, 8)
