"""How spans and their attributes are named: OpenTelemetry's conventions for RPC and generative AI, and our own.

The gen_ai names are still in development (https://opentelemetry.io/docs/specs/semconv/gen-ai/): a new version of them
changes this file alone. What was asked and answered has names there too, and is never among ours.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from tollhouse_server.telemetry.steps import UPSTREAM

OPERATIONS: Final = {
    "generateContent": "generate_content",
    "streamGenerateContent": "generate_content",
    "countTokens": "count_tokens",
    "batchEmbedContents": "embeddings",
}
"""gen_ai.operation.name by Gemini's method; `count_tokens` is ours, the conventions have none."""

PROVIDERS: Final = {"gemini_api": "gcp.gemini", "vertex": "gcp.vertex_ai", "openai_compatible": "openai_compatible"}
"""gen_ai.provider.name by kind of target; a server of one's own is none of the conventions' providers."""

GRPC_CODES: Final = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)

SERVER_FAULTS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Codes that make an RPC's span an error, as the conventions for gRPC have it: all others are the caller's affair."""

_CALL: Final = {
    "tenant": "tollhouse.tenant",
    "department": "tollhouse.department",
    "project": "tollhouse.project",
    "credential_id": "tollhouse.credential_id",
    "request_id": "tollhouse.request_id",
    "correlation_id": "tollhouse.correlation_id",
    "asked": "tollhouse.asked",
    "tier": "tollhouse.tier",
    "model": "tollhouse.model",
    "target": "tollhouse.target",
    "account": "tollhouse.account",
    "region": "tollhouse.region",
    "attempts": "tollhouse.attempts",
    "cost_nanos": "tollhouse.cost_nanos",
    "held_nanos": "tollhouse.held_nanos",
    "booked": "tollhouse.booked",
    "reason": "tollhouse.reason",
    "first_chunk_seconds": "tollhouse.first_chunk_seconds",
}
_UPSTREAM: Final = {
    "tier": "tollhouse.tier",
    "account": "tollhouse.account",
    "region": "tollhouse.region",
    "attempt_id": "tollhouse.attempt_id",
    "model": "gen_ai.request.model",
    "response_model": "gen_ai.response.model",
    "response_id": "gen_ai.response.id",
    "finish_reasons": "gen_ai.response.finish_reasons",
}
_STEP: Final = {
    "priority": "tollhouse.priority",
    "kind": "tollhouse.record_kind",
    "outcome": "tollhouse.booked",
    "cost_nanos": "tollhouse.cost_nanos",
    "held_nanos": "tollhouse.held_nanos",
}
_TOKENS: Final = {"input": "gen_ai.usage.input_tokens", "output": "gen_ai.usage.output_tokens"}


def call_attributes(rpc: str, code: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of an RPC's span; `facts` are what the log is told of the call."""
    service, _, method = rpc.partition(".")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    return {**attributes, "rpc.grpc.status_code": GRPC_CODES.index(code), **_named(facts, _CALL)}


def step_attributes(name: str, facts: Mapping[str, Any], error: str) -> dict[str, Any]:
    """Return the attributes of a step's span."""
    attributes: dict[str, Any] = {}
    if facts:
        attributes = _upstream_attributes(facts) if name == UPSTREAM else _named(facts, _STEP)
    return {**attributes, "error.type": error} if error else attributes


def span_name(name: str, facts: Mapping[str, Any]) -> str:
    """Return the name of a step's span: of an attempt what is asked of which model, else the step's own."""
    if name != UPSTREAM:
        return name
    return f"{_operation(facts)} {facts['model']}"


def _upstream_attributes(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": _operation(facts),
        "gen_ai.provider.name": PROVIDERS.get(facts["target"], facts["target"]),
        **_named(facts, _UPSTREAM),
        **_server(facts["address"]),
        **_tokens(facts),
    }


def _operation(facts: Mapping[str, Any]) -> str:
    method: str = facts["method"]
    return OPERATIONS.get(method, method)


def _named(facts: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return facts under their names in spans; what is empty or has no name there is left out."""
    return {names[fact]: value for fact, value in facts.items() if fact in names and (value or value == 0)}


def _tokens(facts: Mapping[str, Any]) -> dict[str, int]:
    counts = facts.get("tokens") or {}
    return {_TOKENS.get(kind) or f"tollhouse.tokens.{kind}": count for kind, count in counts.items()}


@lru_cache
def _server(address: str) -> Mapping[str, Any]:
    """Return the host and port of an upstream's address."""
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname or "", "server.port": port}
