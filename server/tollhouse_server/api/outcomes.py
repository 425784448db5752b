"""What became of a served call, as the message that the caller gets: usage, cost, route, receipt, notices."""

from collections.abc import Iterator
from typing import TypeAlias

from tollhouse.v1 import generation_pb2 as pb

from tollhouse_server.api.routing_messages import KIND_NUMBERS, tier_choice_message
from tollhouse_server.api.values import money, timestamp
from tollhouse_server.generation.calls import CallNotice, Outcome, TargetTried
from tollhouse_server.names import AccountName
from tollhouse_server.pricing.price import Line
from tollhouse_server.pricing.usage import TOKEN_KINDS, Tokens, Usage
from tollhouse_server.reporting.records import ChargedLine

ReceiptLine: TypeAlias = Line | ChargedLine


def outcome_message(outcome: Outcome) -> pb.Outcome:
    """Return the message of an outcome."""
    cost = money(outcome.priced.cost_nanos)
    return pb.Outcome(
        usage=None if outcome.usage is None else usage_message(outcome.usage),
        cost=cost,
        route=pb.Route(
            tier=outcome.route.tier or None,
            model=outcome.route.model,
            target=outcome.route.target,
            account=str(AccountName(outcome.route.account_id)),
            attempts=outcome.route.attempts,
            cache=pb.CACHE_RESULT_MISS,
            tried=map(_attempt, outcome.route.tried),
            tier_choice=None if outcome.route.choice is None else tier_choice_message(outcome.route.choice),
        ),
        receipt=pb.Receipt(
            attempt_id=str(outcome.attempt_id),
            request_id=str(outcome.request_id),
            price_version=str(outcome.priced.price_version),
            project=outcome.scope.project_name,
            cost=cost,
            lines=map(line_message, outcome.priced.lines),
            settled_at=timestamp(outcome.settled_at),
            correlation_id=outcome.correlation_id,
        ),
        notices=[_notice(notice) for notice in outcome.notices],
    )


def _attempt(tried: TargetTried) -> pb.RouteAttempt:
    return pb.RouteAttempt(
        model=tried.model,
        kind=KIND_NUMBERS[tried.kind],
        account=str(AccountName(tried.account_id)),
        region=tried.region,
        outcome=pb.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{tried.outcome}"),
        attempt_id=None if tried.attempt_id is None else str(tried.attempt_id),
    )


def line_message(line: ReceiptLine) -> pb.PricedLine:
    """Return the message of a priced line, as it was priced now or kept in the ledger."""
    return pb.PricedLine(
        sku=line.sku,
        quantity=line.quantity,
        unit=line.unit,
        nanos_per_million_units=line.nanos_per_million,
        cost_nanos=line.cost_nanos,
    )


def usage_message(usage: Usage) -> pb.Usage:
    """Return the message of a call's usage; counts that are zero are stated as zero."""
    return pb.Usage(
        prompt_tokens=usage.prompt.total,
        cached_tokens=usage.cached.total,
        tool_use_prompt_tokens=usage.tool_use.total,
        candidates_tokens=usage.candidates.total,
        thoughts_tokens=usage.thoughts_tokens,
        total_tokens=usage.total_tokens,
        images=usage.images,
        by_modality=[
            *_modalities(usage.prompt, pb.USAGE_DIRECTION_PROMPT),
            *_modalities(usage.cached, pb.USAGE_DIRECTION_CACHED),
            *_modalities(usage.tool_use, pb.USAGE_DIRECTION_TOOL_USE),
            *_modalities(usage.candidates, pb.USAGE_DIRECTION_CANDIDATES),
        ],
    )


def _modalities(tokens: Tokens, direction: "pb.UsageDirection.ValueType") -> Iterator[pb.ModalityUsage]:
    for modality in TOKEN_KINDS:
        count = getattr(tokens, modality)
        if count:
            yield pb.ModalityUsage(direction=direction, modality=modality.upper(), tokens=count)


def _notice(notice: CallNotice) -> pb.Notice:
    code = pb.NoticeCode.Value(f"NOTICE_CODE_{notice.code}")
    return pb.Notice(code=code, message=notice.message, metadata=notice.metadata)
