"""A statement of a made-up company: Halden Instruments, an October with everything that a month can have."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tollhouse_server.chargeback.statement import (
    Amounts,
    BudgetUse,
    DisplayCurrency,
    Entry,
    EntryKind,
    Forecast,
    Part,
    PeriodState,
    Refusals,
    Return,
    Savings,
    Seal,
    Statement,
    UsageLine,
)
from tollhouse_server.names import TenantName
from tollhouse_server.reporting.periods import month_period
from tollhouse_server.reporting.sums import Dimension

MONTH = "2026-10"
TENANT = "tenants/halden"
DEPARTMENTS = {
    "customer-service": "Customer Service",
    "engineering": "Engineering",
    "finance": "Finance",
    "field-service": "Field Service",
    "legal": "Legal & Compliance",
    "marketing": "Marketing",
    "product": "Product",
    "research": "Research <R&D>",
    "sales-emea": "Sales EMEA",
    "shanghai": "上海分公司",
}
_PROJECTS = ("assistant", "documents")
_MODELS = (
    ("pro", "gemini-3-pro", 1250, 10_000),
    ("flash", "gemini-2.5-flash", 300, 2_500),
    ("flash-lite", "gemini-2.5-flash-lite", 100, 400),
)
_SKUS = (("input_text", 0.7), ("cached_input", 0.2), ("output_text", 0.1))


def statement(**changes: Any) -> Statement:
    """Build the sample; keywords replace its fields."""
    lines = _lines()
    entries = _entries(lines)
    return Statement(**{**_frame(), **_figures(lines, entries), **changes})


def bare_statement() -> Statement:
    """Build a month in which nothing was used."""
    return Statement(**_frame(), totals=Amounts(), lines=(), entries=())


def sealed_statement() -> Statement:
    """Build the sample as it is after its close."""
    seal = Seal(
        sha256="8c1f" * 16,
        signature="vault:v1:" + "Zm9vYmFyYmF6" * 7,
        key_version=3,
        closed_at=datetime(2026, 11, 4, 9, 30, tzinfo=UTC),
        closed_by=f"{TENANT}/principals/ingrid-berg",
    )
    return statement(state=PeriodState.CLOSED, forecast=None, seal=seal)


def _frame() -> dict[str, Any]:
    return {
        "scope": TenantName("halden"),
        "display_name": "Halden Instruments plc",
        "month": MONTH,
        "period": month_period(MONTH, ZoneInfo("Europe/Oslo")),
        "time_zone": "Europe/Oslo",
        "is_fiscal": False,
        "state": PeriodState.PREVIEW,
        "generated_at": datetime(2026, 11, 2, 7, 15, 4, tzinfo=UTC),
    }


def _lines() -> tuple[UsageLine, ...]:
    lines = []
    for place, department in enumerate(DEPARTMENTS):
        for project in _PROJECTS:
            for tier, model, input_price, output_price in _MODELS:
                calls = 1_700 + 937 * ((place * 7 + len(project) + len(model)) % 23)
                for sku, part in _SKUS:
                    quantity = int(calls * 2_100 * part)
                    price = output_price if sku == "output_text" else input_price
                    lines.append(_line(department, project, (tier, model, sku), quantity, calls, price))
    return tuple(lines)


def _line(
    department: str, project: str, what: tuple[str, str, str], quantity: int, calls: int, price: int
) -> UsageLine:
    tier, model, sku = what
    name = f"{TENANT}/departments/{department}"
    return UsageLine(
        department=name,
        project=f"{name}/projects/{project}",
        tier=tier,
        model=model,
        sku=sku,
        unit="token",
        quantity=quantity,
        calls=calls,
        cost_nanos=quantity * price + 7,
    )


def _entries(lines: Sequence[UsageLine]) -> tuple[Entry, ...]:
    entries = []
    for department in DEPARTMENTS:
        name = f"{TENANT}/departments/{department}"
        cost = sum(line.cost_nanos for line in lines if line.department == name)
        entries.append(_entry(EntryKind.RATE, cost * 4 // 100, name, "Mark-up of 4 % for platform operation", cost))
        entries.append(_entry(EntryKind.SHARED, 31_250_000_001, name, "Platform fee of October, spread evenly", None))
    research = f"{TENANT}/departments/research"
    entries.append(_entry(EntryKind.RATE, -42_000_000_000, research, "Volume discount above 200 USD", 420_000_000_000))
    credit = _entry(EntryKind.ADJUSTMENT, -18_400_000_000, research, "Credit for the outage of 12 September", None)
    true_up = _entry(EntryKind.TRUE_UP, 3_120_450_017, "", "Google billed 12 grounding queries more", None)
    return (*entries, credit, true_up)


def _entry(kind: EntryKind, amount_nanos: int, department: str, reason: str, basis_nanos: int | None) -> Entry:
    return Entry(
        kind=kind,
        amount_nanos=amount_nanos,
        rule=f"{TENANT}/chargeRules/{kind.value.lower().replace('_', '-')}",
        reason=reason,
        department=department,
        basis_nanos=basis_nanos,
        for_month="2026-09" if kind is EntryKind.ADJUSTMENT else "",
    )


def _figures(lines: tuple[UsageLine, ...], entries: tuple[Entry, ...]) -> dict[str, Any]:
    totals = _sum(_amounts(line) for line in lines)
    added = sum(entry.amount_nanos for entry in entries)
    return {
        "totals": _plus(totals, suspense_calls=3, suspense_nanos=410_000_000, charge_nanos=added),
        "lines": lines,
        "entries": entries,
        "breakdowns": _breakdowns(lines, entries, totals),
        "labels": tuple(
            Part(key=key, amounts=_share(totals, percent, 100))
            for key, percent in (("product=cosmo", 41), ("product=orbit", 22), ("cost-centre=7100", 9))
        ),
        "savings": Savings(cache_nanos=212_345_678_901, batch_nanos=96_400_000_000, on_device_nanos=17_250_000_000),
        "refusals": Refusals(calls=412, ceiling_nanos=61_300_000_000),
        "budgets": _budgets(),
        "forecast": _forecast(totals.charge_nanos + added),
        "returns": (
            Return(unit="support ticket", units=18_230, alternative_nanos=54_690 * 10**9, actual_nanos=10**12),
        ),
        "currency": DisplayCurrency(
            code="NOK", per_dollar_millionths=10_412_300, dated=date(2026, 10, 30), source="ECB"
        ),
        "price_versions": (14, 15),
        "department_names": {f"{TENANT}/departments/{key}": name for key, name in DEPARTMENTS.items()},
    }


def _return() -> Return:
    return Return(unit="support ticket", units=18_230, alternative_nanos=54_690 * 10**9, actual_nanos=10**12)


def _krone() -> DisplayCurrency:
    return DisplayCurrency(code="NOK", per_dollar_millionths=10_412_300, dated=date(2026, 10, 30), source="ECB")


def _breakdowns(
    lines: Sequence[UsageLine], entries: Sequence[Entry], totals: Amounts
) -> dict[Dimension, tuple[Part, ...]]:
    return {
        Dimension.DEPARTMENT: _parts(lines, entries, "department"),
        Dimension.PROJECT: _parts(lines, entries, "project"),
        Dimension.TIER: _parts(lines, entries, "tier"),
        Dimension.MODEL: _parts(lines, entries, "model"),
        Dimension.DAY: _days(totals, sum(entry.amount_nanos for entry in entries)),
    }


def _parts(lines: Sequence[UsageLine], entries: Sequence[Entry], field: str) -> tuple[Part, ...]:
    found: dict[str, Amounts] = defaultdict(Amounts)
    for line in lines:
        found[getattr(line, field)] = _sum((found[getattr(line, field)], _amounts(line)))
    for entry in entries:
        key = entry.department if field == "department" else ""
        found[key] = _plus(found[key], charge_nanos=entry.amount_nanos)
    return tuple(Part(key=key, amounts=found[key]) for key in sorted(found))


def _days(totals: Amounts, added_nanos: int) -> tuple[Part, ...]:
    weights = [40 if (date(2026, 10, 1) + timedelta(day)).weekday() >= 5 else 100 + day * 2 for day in range(31)]
    days = [_share(totals, weight, sum(weights)) for weight in weights]
    rest = {field.name: getattr(totals, field.name) - getattr(_sum(days), field.name) for field in fields(Amounts)}
    days[-1] = _plus(days[-1], **rest)
    found = [Part(key=f"{date(2026, 10, 1) + timedelta(day)}", amounts=each) for day, each in enumerate(days)]
    return (Part(key="", amounts=Amounts(charge_nanos=added_nanos)), *found)


def _budgets() -> tuple[BudgetUse, ...]:
    used = (("engineering", 900, 741), ("research", 600, 664), ("marketing", 500, 318), ("shanghai", 250, 97))
    whole = BudgetUse(
        limit=f"{TENANT}/limits/company",
        scope=TENANT,
        display_name="Company, October",
        amount_nanos=6_000 * 10**9,
        used_nanos=4_876_543_210_987,
    )
    return (
        whole,
        *(
            BudgetUse(
                limit=f"{TENANT}/limits/{department}",
                scope=f"{TENANT}/departments/{department}",
                display_name=f"{DEPARTMENTS[department]} monthly",
                amount_nanos=amount * 10**9,
                used_nanos=spent * 10**9 + 123_456_789,
            )
            for department, amount, spent in used
        ),
    )


def _forecast(charge_nanos: int) -> Forecast:
    return Forecast(
        expected_nanos=charge_nanos * 104 // 100,
        low_nanos=charge_nanos * 98 // 100,
        high_nanos=charge_nanos * 112 // 100,
        confidence_percent=90,
        reserve_percent=20,
        recommended_nanos=charge_nanos * 125 // 100,
        expected_charge_nanos=charge_nanos * 110 // 100,
        low_charge_nanos=charge_nanos * 103 // 100,
        high_charge_nanos=charge_nanos * 119 // 100,
        recommended_charge_nanos=charge_nanos * 132 // 100,
    )


def _amounts(line: UsageLine) -> Amounts:
    is_input = line.sku != "output_text"
    return Amounts(
        # Each call has a part in every SKU; it counts once.
        calls=line.calls if line.sku == "input_text" else 0,
        input_tokens=line.quantity if is_input else 0,
        cached_tokens=line.quantity if line.sku == "cached_input" else 0,
        output_tokens=0 if is_input else line.quantity,
        thoughts_tokens=0 if is_input else line.quantity // 4,
        cost_nanos=line.cost_nanos,
        charge_nanos=line.cost_nanos,
    )


def _sum(amounts: Any) -> Amounts:
    several = tuple(amounts)
    return Amounts(**{field.name: sum(getattr(each, field.name) for each in several) for field in fields(Amounts)})


def _plus(amounts: Amounts, **more: int) -> Amounts:
    return _sum((amounts, Amounts(**more)))


def _share(amounts: Amounts, part: int, whole: int) -> Amounts:
    return Amounts(**{field.name: getattr(amounts, field.name) * part // whole for field in fields(Amounts)})
