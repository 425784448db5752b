"""What buckets report, as operators see it."""

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from tollhouse_server.routing.priorities import Priority
from tollhouse_server.routing.targets import Account, AccountLimit, AccountMetric
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.traffic.account_use import use_of
from tollhouse_server.traffic.bucket_reports import SECTION, BucketReports
from tollhouse_server.traffic.buckets import Buckets, amounts_of
from tollhouse_server.traffic.report_store import ProcessReport
from tollhouse_server.upstream.protocol import UpstreamKind

REQUESTS, SPEND = AccountMetric.REQUESTS_PER_MINUTE, AccountMetric.SPEND_PER_10_MINUTES
ACCOUNT = Account(
    account_id="east",
    kind=UpstreamKind.VERTEX,
    project="p",
    base_url="http://nowhere",
    limits=(
        AccountLimit(metric=REQUESTS, amount=100, model="flash"),
        AccountLimit(metric=SPEND, amount=10**10),
    ),
)


def test_the_section_of_buckets_is_read_as_it_is_written() -> None:
    """The limit of the model and the one over all models, each with what calls have taken, and the cooling down."""
    buckets = Buckets(clock=lambda: 1000.0, chance=lambda: 0.0)
    buckets.reconfigure([ACCOUNT])
    bucket = buckets.bucket("east", "flash")
    bucket.take(
        (Priority.DEFAULT, "acme", "sales"), amounts_of(input_tokens=10, images=0, cost_nanos=3 * 10**9), 1000.0
    )
    buckets.exhaust(bucket, 30.0, (), begun_at=999.0)
    section = BucketReports(buckets, Metrics(CollectorRegistry()), clock=lambda: 1000.0).section()
    report = ProcessReport(process_key="one", reported_at=datetime.now(UTC), sections={SECTION: section})

    use = use_of(ACCOUNT, "flash", [report, report])

    rooms = [(room.metric, room.model, room.limit, room.used) for room in use.head_rooms]
    assert rooms == [(REQUESTS, "flash", 100, 2), (SPEND, "", 10**10, 6 * 10**9)]
    assert use.in_flight == 2
    assert use.cooling_until is not None
    assert round((use.cooling_until - report.reported_at).total_seconds()) == 30
