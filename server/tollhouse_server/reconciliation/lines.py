"""One line of Google's bill, as it is kept."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class BillLine:
    """A line of the Cloud Billing export. Nano-dollars are unrounded here; `cost` is in `currency`.

    `conversion_rate` is how much of the currency one dollar is. `credits_nanos` are all credits, zero or negative, and
    `free_nanos` those of a free tier among them. `usage_digest` is the same for two lines that differ only in the time
    of their export, `line_digest` for lines that do not differ.
    """

    line_digest: bytes
    usage_digest: bytes
    billing_account: str
    day: date
    usage_start: datetime
    usage_end: datetime
    export_time: datetime
    invoice_month: str
    project: str
    service_id: str
    service: str
    sku_id: str
    sku: str
    cost_type: str
    currency: str
    conversion_rate: Decimal
    cost: Decimal
    cost_nanos: Decimal
    list_nanos: Decimal | None
    credits: list[dict[str, Any]]
    credits_nanos: Decimal
    free_nanos: Decimal
    quantity: Decimal
    unit: str
