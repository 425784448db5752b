"""Statements as FOCUS 1.2, the FinOps Foundation's columns for cost and usage: a row for each line and each entry.

Usage rows are at list price in all four costs, since a line is booked so; mark-ups, shared costs and corrections are
rows of their own, as the statement has them. So the column BilledCost adds up to the statement's charge.

There is no column of unit prices: a line may be of several versions of the price book, and FOCUS wants price times
quantity to be exact. Columns that begin with "x_" are Tollhouse's own, as FOCUS allows.
"""

import csv
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from tollhouse_server.chargeback.statement import Entry, EntryKind, Statement, UsageLine
from tollhouse_server.documents.language import Language
from tollhouse_server.documents.names_for_people import department_title, last_part
from tollhouse_server.documents.spreadsheet_text import no_formula
from tollhouse_server.money import nanos_to_dollars
from tollhouse_server.names import TenantName

_COLUMNS: Final = (
    *("BillingAccountId", "BillingAccountName", "BillingAccountType", "BillingCurrency"),
    *("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd"),
    *("SubAccountId", "SubAccountName", "SubAccountType"),
    *("ProviderName", "PublisherName", "InvoiceIssuerName", "InvoiceId"),
    *("ServiceCategory", "ServiceSubcategory", "ServiceName"),
    *("ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency"),
    *("SkuId", "SkuMeter", "SkuPriceId", "PricingCategory"),
    # There are no commitments; rules for what was consumed ask for the column all the same.
    *("PricingQuantity", "PricingUnit", "ConsumedQuantity", "ConsumedUnit", "CommitmentDiscountStatus"),
    *("ListCost", "ContractedCost", "EffectiveCost", "BilledCost"),
    *("x_Project", "x_Tier", "x_Model", "x_Calls", "x_EntryKind", "x_Rule", "x_BasisCost", "x_ForMonth"),
    *("x_DepartmentName", "x_Reason"),
)
# Units of FOCUS are plural, with hyphens between words.
_UNITS: Final = {"query": "Queries", "token_hour": "Token-Hours", "": "Units"}
_FREQUENCIES: Final = {EntryKind.RATE: "Usage-Based", EntryKind.SHARED: "Recurring"}


def render_focus(statement: Statement, _: Language) -> bytes:
    """Return CSV in UTF-8, without a byte order mark."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    frame = _frame(statement)
    for line in statement.lines:
        writer.writerow({**frame, **_usage(statement, line)})
    for entry in statement.entries:
        writer.writerow({**frame, **_entry(statement, entry)})
    return text.getvalue().encode()


def _frame(statement: Statement) -> Mapping[str, str]:
    """Return what is the same in all rows."""
    start, end = _moment(statement.period.start), _moment(statement.period.end)
    tenant = str(TenantName(statement.scope.tenant))
    name = statement.display_name if tenant == str(statement.scope) else ""
    return {
        "BillingAccountId": tenant,
        "BillingAccountName": _plain(name, statement.scope.tenant),
        "BillingAccountType": "Tenant",
        "BillingCurrency": "USD",
        "BillingPeriodStart": start,
        "BillingPeriodEnd": end,
        "ChargePeriodStart": start,
        "ChargePeriodEnd": end,
        "ProviderName": "Tollhouse",
        "PublisherName": "Google",
        "InvoiceIssuerName": "Tollhouse",
        # The statement is the invoice; while its month is not closed, a provisional one.
        "InvoiceId": f"{statement.scope}/periods/{statement.month}",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "ServiceName": "Gemini",
    }


def _usage(statement: Statement, line: UsageLine) -> dict[str, str]:
    sku = f"{last_part(line.model)}/{line.sku}"
    # With a point: FOCUS has decimals here, and who reads CSV guesses the type.
    quantity = {"Quantity": f"{line.quantity}.0", "Unit": _UNITS.get(line.unit) or f"{line.unit.title()}s"}
    return {
        **_sub_account(statement, line.department),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{line.sku} of {last_part(line.model)}",
        "ChargeFrequency": "Usage-Based",
        "SkuId": sku,
        "SkuMeter": line.sku,
        "SkuPriceId": f"{sku}/{last_part(line.tier)}",
        "PricingCategory": "Standard",
        **{f"{kind}{what}": value for kind in ("Pricing", "Consumed") for what, value in quantity.items()},
        **_costs(line.cost_nanos),
        "x_Project": line.project,
        "x_Tier": line.tier,
        "x_Model": line.model,
        "x_Calls": str(line.calls),
    }


def _entry(statement: Statement, entry: Entry) -> dict[str, str]:
    is_credit = entry.kind is EntryKind.ADJUSTMENT and entry.amount_nanos < 0
    return {
        **_sub_account(statement, entry.department),
        "ChargeCategory": "Credit" if is_credit else "Adjustment",
        "ChargeClass": "Correction" if entry.for_month and entry.for_month != statement.month else "",
        "ChargeDescription": _plain(entry.reason, f"{entry.kind.value.title()} of {entry.rule}"),
        "x_Reason": no_formula(entry.reason),
        "ChargeFrequency": _FREQUENCIES.get(entry.kind, "One-Time"),
        **_costs(entry.amount_nanos),
        "x_Project": entry.project,
        "x_Tier": entry.tier,
        "x_Model": entry.model,
        "x_EntryKind": entry.kind.value,
        "x_Rule": entry.rule,
        "x_BasisCost": "" if entry.basis_nanos is None else nanos_to_dollars(entry.basis_nanos),
        "x_ForMonth": entry.for_month,
    }


def _sub_account(statement: Statement, department: str) -> dict[str, str]:
    if not department:
        return {}
    title = department_title(statement, department)
    return {
        "SubAccountId": department,
        "SubAccountName": _plain(title, last_part(department)),
        "SubAccountType": "Department",
        "x_DepartmentName": no_formula(title),
    }


def _costs(nanos: int) -> dict[str, str]:
    return dict.fromkeys(("ListCost", "ContractedCost", "EffectiveCost", "BilledCost"), nanos_to_dollars(nanos))


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(text: str, otherwise: str) -> str:
    """Return a text where it is ASCII, which is all that the validator of FOCUS takes; else what stands for it."""
    return no_formula(text) if text.strip() and text.isascii() else otherwise
