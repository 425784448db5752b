"""Google's counts of usage as they are sent, and what differs from them as it is told."""

from tollhouse.admin.v1 import reconciliation_pb2 as pb

from tollhouse_server.api.charge_dates import day_of
from tollhouse_server.reconciliation.counts import CountDifference, CountKey, Counts, added_up, compare_counts


def counts_of(request: pb.VerifyUsageMetricsRequest) -> dict[CountKey, Counts]:
    """Return what Google has counted, by key.

    Raises:
        InvalidRequest: a day is none of the calendar.
    """
    return added_up(
        (
            CountKey(day_of(one.day, f"usage_metrics[{place}].day"), one.google_project, one.model),
            Counts(requests=one.requests, tokens=one.tokens if one.HasField("tokens") else None),
        )
        for place, one in enumerate(request.usage_metrics)
    )


def comparison(counted: dict[CountKey, Counts], attempts: dict[CountKey, Counts]) -> pb.VerifyUsageMetricsResponse:
    """Return both held against each other."""
    return pb.VerifyUsageMetricsResponse(
        differences=map(_difference, compare_counts(counted, attempts)),
        compared_count=len(counted.keys() | attempts.keys()),
        counted_requests=sum(one.requests for one in counted.values()),
        attempts=sum(one.requests for one in attempts.values()),
    )


def _difference(one: CountDifference) -> pb.UsageMetricDifference:
    return pb.UsageMetricDifference(
        counted=pb.UsageMetric(
            day=one.key.day.isoformat(),
            google_project=one.key.project,
            model=one.key.model,
            requests=one.counted.requests,
            tokens=one.counted.tokens,
        ),
        attempts=one.attempts.requests,
        refused_attempts=one.attempts.refused,
        unknown_attempts=one.attempts.unknown,
        booked_tokens=one.attempts.tokens or 0,
        reason=pb.UsageMetricDifference.Reason.Value(f"REASON_{one.reason}"),
    )
