"""The ledger's tables as reports read them; they are written by the tick alone."""

from typing import Final

from sqlalchemy import BigInteger, Text, Uuid, column, table
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
