"""What logs and traces are told of a generation call: names, counts and money, never what was said."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tollhouse_server.generation.calls import GenerationCall
from tollhouse_server.ledger.terms import Reservation, Settlement
from tollhouse_server.pricing.usage import Usage
from tollhouse_server.telemetry.call_metrics import tokens_by_kind
from tollhouse_server.telemetry.steps import UPSTREAM, StepNotes, note, step

if TYPE_CHECKING:
    from tollhouse_server.generation.trials import Served, Trial

_MOST_CHARACTERS = 100
"""What Gemini names is shorter; whatever is longer is something else."""


def note_call(call: GenerationCall) -> None:
    """Note who pays for a call, and what it asks for."""
    scope = call.scope
    note(
        tenant=scope.tenant_id,
        department=scope.department_path[-1],
        project=scope.project_id,
        credential_id=scope.credential_id,
        request_id=call.request_id,
        method=call.method.value,
        asked=call.model or call.tier,
    )


def upstream_step(trial: "Trial") -> StepNotes:
    """Begin the step in which an upstream has the call."""
    target = trial.stage.stop.target
    return step(
        UPSTREAM,
        method=trial.upstream_call.method.value,
        tier=trial.stage.stop.tier,
        model=target.model,
        target=target.kind.value,
        account=target.account_id,
        region=target.region,
        address=target.base_url,
        attempt_id=trial.attempt.attempt_id,
    )


def note_answer(upstream: StepNotes, served: "Served") -> None:
    """Note what an upstream has answered with."""
    upstream.note(
        response_id=served.response_id[:_MOST_CHARACTERS],
        response_model=served.model_version[:_MOST_CHARACTERS],
        finish_reasons=served.finish_reasons,
        tokens=None if served.bill.usage is None else _tokens(served.bill.usage),
    )


def settle_step(reservation: Reservation, settlement: Settlement) -> StepNotes:
    """Begin the step in which an attempt is booked."""
    return step(
        "settle",
        kind=settlement.kind.value,
        outcome=settlement.outcome_word,
        cost_nanos=settlement.actual.cost_nanos,
        held_nanos=reservation.terms.ceiling.cost_nanos,
    )


def finish_reasons_of(candidates: Any) -> tuple[str, ...]:
    """Return why Gemini ended each candidate, as far as they say so."""
    if not isinstance(candidates, list):
        return ()
    return tuple(reason[:_MOST_CHARACTERS] for reason in _reasons(candidates))


def model_version_of(body: Mapping[str, Any]) -> str:
    """Return the model that answered, by its own word; empty where it says none."""
    found = body.get("modelVersion")
    return found if isinstance(found, str) else ""


def _reasons(candidates: Iterable[Any]) -> Iterable[str]:
    for candidate in candidates:
        reason = candidate.get("finishReason") if isinstance(candidate, Mapping) else None
        if isinstance(reason, str):
            yield reason


def _tokens(usage: Usage) -> dict[str, int]:
    counts = tokens_by_kind(usage)
    found = counts.get
    sums = {"input": found("prompt", 0) + found("tool_use", 0), "output": found("candidates", 0) + found("thoughts", 0)}
    return counts | {name: count for name, count in sums.items() if count}
