"""The ledger's tables as reports read them, written by the tick alone, and the tables of roll-ups and exports."""

from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, ColumnClause, Date, Numeric, Text, Uuid, column, table
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from tollhouse_server.database.types import INSTANT

RECORD: Final = table(
    "usage_record",
    column("tenant_id", Text),
    column("attempt_id", Uuid),
    column("settled_at", INSTANT),
    column("kind", Text),
    column("request_id", Uuid),
    column("dispatched_at", INSTANT),
    column("department_path", ARRAY(Text)),
    column("project_id", Text),
    column("credential_id", Text),
    column("method", Text),
    column("tier", Text),
    column("model", Text),
    column("account_id", Text),
    column("labels", JSONB),
    column("price_version", BigInteger),
    column("input_tokens", BigInteger),
    column("output_tokens", BigInteger),
    column("images", BigInteger),
    column("cost_nanos", BigInteger),
    column("usage", JSONB),
    column("lines", JSONB),
    column("outcome", Text),
    column("correlation_id", Text),
)

SUSPENSE: Final = table(
    "suspense", column("tenant_id", Text), column("attempt_id", Uuid), column("resolved_at", INSTANT)
)

REQUEST_KEY: Final = table(
    "request_key",
    column("tenant_id", Text),
    column("request_id", Uuid),
    column("attempt_id", Uuid),
    column("created_at", INSTANT),
)

API_KEY: Final = table("api_key", column("tenant_id", Text), column("key_id", Text), column("project_id", Text))

PROJECT: Final = table("project", column("tenant_id", Text), column("project_id", Text), column("department_id", Text))

ROLLUP_DAY: Final = table(
    "usage_rollup_day",
    column("tenant_id", Text),
    column("day_start", INSTANT),
    column("day_end", INSTANT),
    column("time_zone", Text),
    column("record_count", BigInteger),
    column("cost_nanos", Numeric),
    column("built_at", INSTANT),
    column("has_details", Boolean),
)


def _rollup_key() -> tuple[ColumnClause[Any], ...]:
    """Return the columns of a roll-up's key: what reports can be split by, but for the SKU."""
    return (
        column("tenant_id", Text),
        column("day_start", INSTANT),
        column("department_path", ARRAY(Text)),
        column("project_id", Text),
        column("credential_id", Text),
        column("tier", Text),
        column("model", Text),
    )


ROLLUP: Final = table(
    "usage_rollup",
    *_rollup_key(),
    column("record_count", BigInteger),
    column("is_booked", Boolean),
    column("calls", Numeric),
    column("input_tokens", Numeric),
    column("output_tokens", Numeric),
    column("images", Numeric),
    column("cost_nanos", Numeric),
    column("cached_tokens", Numeric),
    column("tool_use_tokens", Numeric),
    column("thoughts_tokens", Numeric),
)

ROLLUP_SKU: Final = table(
    "usage_rollup_sku",
    *_rollup_key(),
    column("sku", Text),
    column("calls", Numeric),
    column("quantity", Numeric),
    column("cost_nanos", Numeric),
)

EXPORT: Final = table(
    "usage_export",
    column("month", Date),
    column("state", Text),
    column("record_count", BigInteger),
    column("cost_nanos", Numeric),
    column("checksum", Numeric),
    column("content_sha256", Text),
    column("location", Text),
    column("created_at", INSTANT),
    column("created_by", Text),
    column("confirmed_at", INSTANT),
    column("confirmed_by", Text),
    column("dropped_at", INSTANT),
)
