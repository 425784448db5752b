"""Results as a table, as proto JSON and as CSV; lists follow all pages."""

import csv
import io
import json
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import (
    departments_pb2,
    limit_increases_pb2,
    limits_pb2,
    prices_pb2,
    principals_pb2,
    tenants_pb2,
    usage_reports_pb2,
)
from tollhouse.v1 import errors_pb2, generation_pb2, usage_pb2
from tollhouse_admin import limit_options, price_files
from tollhouse_admin.commands import limit_increases, prices, principals, report, usage
from tollhouse_admin.rendering import enum_number, enum_text

from tests.unit.admin_cli.canned import CannedServer
from tests.unit.admin_cli.conftest import Run

TENANT = tenants_pb2.Tenant(
    name="tenants/acme",
    display_name='Acme, "the" one\x1b[31m',
    state=tenants_pb2.Tenant.STATE_ACTIVE,
    create_time=Timestamp(seconds=1_763_700_000),
)


def page(*ids: str, token: str = "") -> tenants_pb2.ListTenantsResponse:
    """One page of tenants."""
    tenants = [tenants_pb2.Tenant(name=f"tenants/{each}") for each in ids]
    return tenants_pb2.ListTenantsResponse(tenants=tenants, next_page_token=token)


def test_json_is_proto_json_with_all_plain_fields(server: CannedServer, run: Run) -> None:
    """Fields with default values are there, so that a program can rely on them."""
    server.answers["GetTenant"] = TENANT

    result = run("tenants", "show", "acme", "-o", "json")

    document = json.loads(result.out)
    assert document["displayName"] == TENANT.display_name
    assert document["state"] == "STATE_ACTIVE"
    assert document["timeZone"] == ""
    assert document["createTime"] == "2025-11-21T04:40:00Z"


def test_csv_has_a_header_and_quotes_what_needs_it(server: CannedServer, run: Run) -> None:
    """One row for one resource."""
    server.answers["GetTenant"] = TENANT

    result = run("tenants", "show", "acme", "-o", "csv")

    rows = list(csv.reader(io.StringIO(result.out)))
    assert rows[0] == ["name", "display_name", "time_zone", "state", "create_time", "purge_time"]
    assert rows[1] == ["tenants/acme", TENANT.display_name, "", "active", "2025-11-21T04:40:00Z", ""]


def test_a_table_shows_no_control_characters_and_one_row_per_line(server: CannedServer, run: Run) -> None:
    """A display name must not colour the terminal, and a pipe gets unwrapped lines."""
    server.answers["ListTenants"] = tenants_pb2.ListTenantsResponse(tenants=[TENANT])

    result = run("tenants", "list")

    lines = result.out.splitlines()
    assert len(lines) == 2
    assert lines[0].split() == ["NAME", "DISPLAY", "NAME", "TIME", "ZONE", "STATE", "CREATE", "TIME", "PURGE", "TIME"]
    assert "\x1b" not in result.out
    assert 'Acme, "the" one' in lines[1]


def test_rich_markup_in_a_name_is_shown_as_it_is(server: CannedServer, run: Run) -> None:
    """Square brackets are text."""
    tenant = tenants_pb2.Tenant(name="tenants/acme", display_name="[red]x[/red]")
    server.answers |= {"GetTenant": tenant, "ListTenants": tenants_pb2.ListTenantsResponse(tenants=[tenant])}

    assert "[red]x[/red]" in run("tenants", "show", "acme").out
    assert "[red]x[/red]" in run("tenants", "list").out


def test_lists_follow_every_page(server: CannedServer, run: Run) -> None:
    """The token of a page is sent for the next one."""
    server.answers["ListTenants"] = [page("a", "b", token="t1"), page("c", token="t2"), page("d")]

    result = run("tenants", "list", "-o", "json")

    assert [each["name"] for each in json.loads(result.out)] == [f"tenants/{each}" for each in "abcd"]
    assert [call.request.page_token for call in server.received] == ["", "t1", "t2"]


def test_a_limit_stops_the_list_and_the_calls(server: CannedServer, run: Run) -> None:
    """What is not wanted is not asked for."""
    server.answers["ListTenants"] = [page("a", "b", token="t1"), page("c", "d", token="t2"), page("e")]

    result = run("tenants", "list", "--limit", "3", "-o", "csv")

    assert len(result.out.splitlines()) == 1 + 3
    assert len(server.received) == 2


def test_an_empty_list_says_so_on_stderr(server: CannedServer, run: Run) -> None:
    """Stdout stays empty for a script, JSON is an empty array."""
    server.answers["ListTenants"] = page()

    table, document = run("tenants", "list"), run("tenants", "list", "-o", "json")

    assert (table.out, table.err) == ("", "nothing found\n")
    assert document.out == "[]\n"


def test_limits_show_money_and_counts_each_in_its_unit(server: CannedServer, run: Run) -> None:
    """Nano-dollars to the last digit, without a float on the way."""
    limit = limits_pb2.Limit(
        name="tenants/acme/limits/m",
        amount=limits_pb2.LimitAmount(money=Money(units=9_007_199_254_740_993, nanos=1)),
        current=limits_pb2.LimitWindowUsage(held=limits_pb2.LimitAmount(units=7)),
    )
    server.answers["ListLimits"] = limits_pb2.ListLimitsResponse(limits=[limit])

    result = run("limits", "list", "--tenant", "acme", "-o", "csv")

    row = next(csv.DictReader(io.StringIO(result.out)))
    assert row["amount"] == "9007199254740993.000000001"
    assert row["current.held"] == "7"


def test_the_month_report_has_its_lines_and_its_total(server: CannedServer, run: Run) -> None:
    """Grouped as asked, in the order asked, exact."""
    line = usage_reports_pb2.UsageLine(
        department="tenants/acme/departments/r", date=Date(year=2026, month=11, day=3), cost=Money(nanos=1_500)
    )
    server.answers["GetMonthReport"] = usage_reports_pb2.MonthReport(
        parent="tenants/acme",
        month="2026-11",
        lines=[line],
        totals=usage_reports_pb2.UsageTotals(cost=Money(nanos=1_500), record_count=3),
    )

    result = run("report", "month", "--month", "2026-11", "-t", "acme", "-g", "day", "-g", "department", "-o", "csv")

    assert result.out == "day,department,records,cost\n2026-11-03,tenants/acme/departments/r,0,0.0000015\n"
    assert "total $0.0000015 in 3 records" in result.err
    assert list(server.last.request.group_by) == [
        usage_reports_pb2.USAGE_DIMENSION_DAY,
        usage_reports_pb2.USAGE_DIMENSION_DEPARTMENT,
    ]


def test_a_price_import_shows_the_differences_field_by_field(server: CannedServer, run: Run, tmp_path: Path) -> None:
    """With --dry-run nothing is imported and the same is shown."""
    (tmp_path / "prices.toml").write_text("# prices")
    before = prices_pb2.Price(model="m", sku="m/input/text", amount=Money(units=2), per_units=1_000_000)
    after = prices_pb2.Price(model="m", sku="m/input/text", amount=Money(units=4), per_units=1_000_000)
    server.answers["ImportPrices"] = prices_pb2.ImportPricesResponse(
        price_book=prices_pb2.PriceBook(version=8),
        changes=[prices_pb2.PriceChange(before=before, after=after)],
        unchanged_count=41,
    )

    result = run("prices", "import", "prices.toml", "--dry-run", "-o", "csv")

    assert server.last.request.validate_only
    assert server.last.request.format == prices_pb2.PRICE_FILE_FORMAT_TOML
    assert result.out == "model,sku,field,before,after\nm,m/input/text,amount,2.00,4.00\n"
    assert "version 8 would become the price book: 1 changed, 41 unchanged" in result.err


def test_usage_without_a_word_is_the_summary(server: CannedServer, run: Run) -> None:
    """Of the credential's own project, which the server knows."""
    server.answers["GetUsageSummary"] = usage_pb2.UsageSummary(
        total=usage_pb2.UsageGroup(calls=2, cost=Money(nanos=30)), parent="tenants/acme"
    )

    result = run("usage", "--group-by", "model")

    assert not server.last.request.HasField("parent")
    assert "total" in result.out
    assert "$0.00000003" in result.out


def test_limits_of_a_caller_have_bars() -> None:
    """Settled is #, held is +, the rest is free."""
    state = errors_pb2.LimitState(amount=100, settled=50, held=10)

    assert usage.usage_bar(state) == "[##########++........] 60%"
    assert usage.usage_bar(errors_pb2.LimitState(amount=0)) == "[####################] 100%"


def test_a_receipt_shows_its_lines_below_it_in_dollars(server: CannedServer, run: Run) -> None:
    """Nano-dollars are for programs."""
    line = generation_pb2.PricedLine(sku="input_text", quantity=3, unit="token", cost_nanos=1_500)
    server.answers["GetReceipt"] = generation_pb2.Receipt(attempt_id="att-1", lines=[line, line])

    result = run("usage", "receipt", "5f1c0000-0000-4000-8000-000000000000")

    lines = result.out.splitlines()
    assert lines[0].split() == ["attempt_id", "att-1"]
    assert lines[-3].split() == ["SKU", "QUANTITY", "UNIT", "PER", "MILLION", "UNITS", "COST"]
    assert lines[-1].split() == ["input_text", "3", "token", "$0.00", "$0.0000015"]


def test_departments_list_their_path_joined(server: CannedServer, run: Run) -> None:
    """Repeated text is one cell."""
    server.answers["GetDepartment"] = departments_pb2.Department(
        path=["tenants/a/departments/x", "tenants/a/departments/y"]
    )

    assert "tenants/a/departments/x, tenants/a/departments/y" in run("departments", "show", "y", "-t", "a").out


@pytest.mark.parametrize(
    ("typed", "kind"),
    [
        (limit_options.Metric, limits_pb2.LimitMetric.DESCRIPTOR),
        (limit_options.Window, limits_pb2.LimitWindow.DESCRIPTOR),
        (limit_options.Mode, limits_pb2.LimitMode.DESCRIPTOR),
        (limit_increases.State, limit_increases_pb2.LimitIncrease.State.DESCRIPTOR),
        (price_files.Notation, prices_pb2.PriceFileFormat.DESCRIPTOR),
        (price_files.Source, prices_pb2.PriceSource.DESCRIPTOR),
        (prices.State, prices_pb2.PriceProposal.State.DESCRIPTOR),
        (principals.PrincipalKind, principals_pb2.Principal.Kind.DESCRIPTOR),
        (report.Dimension, usage_reports_pb2.UsageDimension.DESCRIPTOR),
        (report.RecordKind, usage_reports_pb2.UsageRecord.Kind.DESCRIPTOR),
        (usage.Dimension, usage_pb2.UsageDimension.DESCRIPTOR),
    ],
)
def test_the_choices_of_an_option_are_those_of_the_proto(typed: type[StrEnum], kind: Any) -> None:
    """A value that the proto gains must be offered, and one that it lacks must not."""
    offered = {each.value: enum_number(kind, each.value) for each in typed}

    assert offered == {enum_text(kind, value.number): value.number for value in kind.values if value.number}
