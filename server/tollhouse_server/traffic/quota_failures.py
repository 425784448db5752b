"""What a QuotaFailure says about a limit that we did not know, or know too high."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tollhouse_server.routing.targets import AccountMetric

_PER_MINUTE = {
    "token": AccountMetric.INPUT_TOKENS_PER_MINUTE,
    "image": AccountMetric.IMAGES_PER_MINUTE,
    "request": AccountMetric.REQUESTS_PER_MINUTE,
}


class LearnedLimit(NamedTuple):
    """A limit as the upstream states it; for all models together unless `per_model`."""

    metric: AccountMetric
    amount: int
    per_model: bool


def learned_limits(violations: Sequence[Mapping[str, Any]]) -> Iterator[LearnedLimit]:
    """Yield the limits that the violations of a QuotaFailure name, as far as they are ones that we count.

    Google says in `quotaId` what is counted and over which time (`GenerateRequestsPerMinutePerProjectPerModel`,
    `GenerateContentInputTokensPerModelPerMinute-FreeTier`), and in `quotaValue` how much of it is allowed.
    """
    for violation in violations:
        metric, amount = _metric(str(violation.get("quotaId", ""))), _amount(violation.get("quotaValue"))
        if metric is not None and amount is not None:
            yield LearnedLimit(metric, amount, "permodel" in str(violation["quotaId"]).lower())


def _metric(quota_id: str) -> AccountMetric | None:
    name = quota_id.lower()
    if "perday" in name:
        return AccountMetric.REQUESTS_PER_DAY if "request" in name else None
    if "perminute" not in name:
        return None
    return next((metric for word, metric in _PER_MINUTE.items() if word in name), None)


def _amount(value: object) -> int | None:
    """Return a positive whole amount; int64 travels as text in JSON. Zero means that the model is not for sale here."""
    try:
        amount = int(value) if isinstance(value, str | int) else 0
    except ValueError:
        return None
    return amount if amount > 0 else None
