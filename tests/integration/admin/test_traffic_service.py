"""Targets, breakers and their orders as operators see and give them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import accounts_pb2
from tollhouse.admin.v1 import traffic_pb2 as pb
from tollhouse.v1 import generation_pb2
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.services.traffic_service import TrafficService
from tollhouse_server.audit.store import list_events
from tollhouse_server.database.epochs import EpochWatch, Topic
from tollhouse_server.errors import (
    EtagMismatch,
    InvalidRequest,
    ModelUnknown,
    PermissionDenied,
    ResourceNotFound,
)
from tollhouse_server.names import PLATFORM
from tollhouse_server.pricing.ceiling import ModelBounds
from tollhouse_server.routing.catalogue import Catalogue, CatalogueParts
from tollhouse_server.routing.models import Alias, Model, Tier, TierChoice
from tollhouse_server.routing.targets import Account, AccountLimit, AccountMetric
from tollhouse_server.traffic import report_store
from tollhouse_server.traffic.breaker_orders import BreakerOrders
from tollhouse_server.traffic.breaker_reports import section_of
from tollhouse_server.traffic.breakers import BreakerKey, Breakers
from tollhouse_server.traffic.verdicts import Verdict
from tollhouse_server.upstream.protocol import UpstreamKind

from tests.integration.admin.plane import Plane

EAST, WEST = BreakerKey("east", "europe-west1", "flash"), BreakerKey("west", "us-central1", "flash")
REQUESTS = AccountMetric.REQUESTS_PER_MINUTE
LIMIT = AccountLimit(metric=REQUESTS, amount=100, model="flash")


def account(name: str, region: str) -> Account:
    """An account on Vertex with a limit for its one model."""
    return Account(
        account_id=name,
        kind=UpstreamKind.VERTEX,
        project=name,
        base_url="http://nowhere",
        endpoint="vertex",
        region=region,
        limits=(LIMIT,),
    )


def catalogue() -> Catalogue:
    """A tier of a model behind two accounts, and one with a model that no account serves."""
    bounds = ModelBounds(input_token_limit=1000, output_token_limit=1000)
    models = [
        Model(model=name, display_name=name, upstreams=(kind,), capabilities=frozenset(), bounds=bounds)
        for name, kind in (("flash", UpstreamKind.VERTEX), ("gemma", UpstreamKind.OPENAI_COMPATIBLE))
    ]
    flash = TierChoice(model="flash", weight=3)
    tiers = [
        Tier(tier="fast", display_name="", description="", choices=(flash, TierChoice(model="gemma"))),
    ]
    return Catalogue(
        CatalogueParts(
            models=tuple(models),
            aliases=(Alias(alias="flash-latest", model="flash"),),
            tiers=tuple(tiers),
            accounts=(account("east", "europe-west1"), account("west", "us-central1")),
            api_versions={},
        )
    )


class Desk:
    """The service over a plane, with reports that a test writes."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        plane.handlers["TrafficService"] = TrafficService(
            plane.database,
            Mutations(plane.database, b"fingerprints"),
            PageTokens(b"pages"),
            catalogue=catalogue,
        )

    async def say(self, *reports: Mapping[str, Any]) -> None:
        """Publish what so many processes report."""
        async with self.plane.database.transaction() as session:
            for number, sections in enumerate(reports):
                await report_store.exchange(
                    session, process_key=f"process {number}", sections=sections, counts=(), today="2026-11-21"
                )

    async def order(self, kind: Any = pb.OpenBreakerRequest, **fields: Any) -> pb.BreakerOrder:
        answer: pb.BreakerOrder = await self.plane.call(
            kind(**{"account": "accounts/east", "reason": "an outage", **fields})
        )
        return answer

    async def orders(self) -> list[tuple[str, str, str, int]]:
        found = await self.plane.call(pb.ListBreakerOrdersRequest())
        return [(one.account, one.region, one.model, one.state) for one in found.breaker_orders]

    async def breakers(self, **narrowed: Any) -> list[pb.Breaker]:
        answer = await self.plane.call(pb.ListBreakersRequest(**narrowed))
        return list(answer.breakers)


@pytest.fixture
async def desk(plane: Plane) -> Desk:
    """Two accounts that an order can be for, in the database too."""
    for name, region in (("east", "europe-west1"), ("west", "us-central1")):
        request = accounts_pb2.CreateAccountRequest(account_id=name, account=accounts_pb2.Account(region=region))
        await plane.call(request)
    return Desk(plane)


def failing(*verdicts: Verdict, key: BreakerKey = EAST) -> Breakers:
    """The breakers of a process that made these calls."""
    breakers = Breakers()
    for verdict in verdicts:
        breakers.begin(key)
        breakers.record(key, verdict, 0.0)
    return breakers


def said_of(breakers: Breakers) -> Mapping[str, Any]:
    """The report of a process with these breakers."""
    return {"breakers": section_of(breakers.snapshot())}


# --- orders -----------------------------------------------------------------------------------------------------------


async def test_an_order_reaches_the_breakers_of_a_process_at_its_next_look(desk: Desk) -> None:
    """Open, closed and released, each by the epoch alone."""
    breakers, watch = failing(), EpochWatch(desk.plane.database)
    watch.on_change(Topic.BREAKERS, BreakerOrders(desk.plane.database, breakers).reload)
    await watch.refresh()
    before = breakers.admits(EAST)

    await desk.order()
    await watch.refresh()
    opened = breakers.admits(EAST)
    await desk.order(pb.CloseBreakerRequest, model="models/flash-latest")
    await watch.refresh()
    closed = breakers.admits(EAST)
    await desk.plane.call(pb.ReleaseBreakerRequest(account="accounts/east", model="flash"))
    await watch.refresh()

    assert (before, opened, closed, breakers.admits(EAST)) == (True, False, True, False)
    assert breakers.admits(WEST)
    assert await desk.orders() == [("accounts/east", "", "", pb.BREAKER_STATE_OPEN)]


async def test_an_order_ends_at_its_time(desk: Desk) -> None:
    """Every process ends it by the clock, without being told."""
    now = datetime.now(UTC)
    until = Timestamp()
    until.FromDatetime(now + timedelta(hours=1))
    breakers = failing()
    clock = [now]
    live = BreakerOrders(desk.plane.database, breakers, now=lambda: clock[0])
    await desk.order(expire_time=until)
    await live.reload()
    before = breakers.admits(EAST)

    clock[0] += timedelta(hours=2)
    live.end_expired()

    assert (before, breakers.admits(EAST)) == (False, True)


async def test_an_order_says_who_gave_it_and_why(desk: Desk) -> None:
    """Those who come later can ask him."""
    order = await desk.order(region="europe-west1", model="flash")

    assert (order.region, order.model, order.reason) == ("europe-west1", "flash", "an outage")
    assert order.orderer == f"tenants/{PLATFORM}/principals/administrator"
    assert order.etag


async def test_every_change_of_orders_is_audited(desk: Desk) -> None:
    """With what was in force before, and what after."""
    await desk.order()
    await desk.order(pb.CloseBreakerRequest, reason="it is well again")
    await desk.plane.call(pb.ReleaseBreakerRequest(account="accounts/east"))

    async with desk.plane.database.transaction() as session:
        events = await list_events(session, PLATFORM, size=1000)
    trail = [
        (event.permission, (event.before or {}).get("reason"), (event.after or {}).get("reason"))
        for event in events
        if "TrafficService" in event.method
    ]
    assert trail == [
        ("breakers.open", None, "an outage"),
        ("breakers.close", "an outage", "it is well again"),
        ("breakers.release", "it is well again", None),
    ]


async def test_a_dry_run_orders_nothing(desk: Desk) -> None:
    """It is answered as the order would be."""
    answer = await desk.order(validate_only=True)

    assert answer.state == pb.BREAKER_STATE_OPEN
    assert await desk.orders() == []


async def test_a_repeated_request_is_one_order(desk: Desk) -> None:
    """The second answer is the first one."""
    request_id = str(uuid4())
    first = await desk.order(request_id=request_id)
    await desk.plane.call(pb.ReleaseBreakerRequest(account="accounts/east"))

    again = await desk.order(request_id=request_id)

    assert again == first
    assert await desk.orders() == []


async def test_an_order_on_a_version_that_is_gone_is_refused(desk: Desk) -> None:
    """Nobody undoes what he has not seen."""
    first = await desk.order()
    await desk.order(reason="still out")

    with pytest.raises(EtagMismatch):
        await desk.plane.call(pb.ReleaseBreakerRequest(account="accounts/east", etag=first.etag))
    with pytest.raises(EtagMismatch):
        await desk.order(model="flash", etag=first.etag)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"account": "accounts/north"}, ResourceNotFound),
        ({"model": "flask"}, ModelUnknown),
        ({"region": "us-central1"}, InvalidRequest),
        ({"expire_time": Timestamp(seconds=1)}, InvalidRequest),
    ],
)
async def test_an_order_that_would_hold_nothing_is_refused(
    desk: Desk, fields: dict[str, Any], error: type[Exception]
) -> None:
    """A slip of the pen must not look like an order."""
    with pytest.raises(error):
        await desk.order(**fields)


async def test_there_is_nothing_to_release_without_an_order(desk: Desk) -> None:
    """Also where an order holds more than what is named."""
    await desk.order()

    with pytest.raises(ResourceNotFound):
        await desk.plane.call(pb.ReleaseBreakerRequest(account="accounts/east", model="flash"))


async def test_custodians_see_and_do_not_order_and_tenants_see_nothing(desk: Desk) -> None:
    """Health of accounts is the platform's business."""
    await desk.plane.tenant("acme")
    custodian = await desk.plane.key(PLATFORM, "keeper", ("key-custodian", PLATFORM))
    outsider = await desk.plane.key("acme", "boss", ("tenant-admin", "tenants/acme"))

    await desk.plane.call(pb.ListBreakersRequest(), key=custodian)
    for request, key in (
        (pb.OpenBreakerRequest(account="accounts/east", reason="no"), custodian),
        (pb.ListTargetsRequest(), outsider),
    ):
        with pytest.raises(PermissionDenied):
            await desk.plane.call(request, key=key)


# --- what is seen -----------------------------------------------------------------------------------------------------


async def test_a_breaker_is_as_bad_as_in_the_process_that_sees_it_worst(desk: Desk) -> None:
    """Calls of all processes are summed up."""
    ill, well = failing(*[Verdict.FAILURE] * 5), failing(*[Verdict.SUCCESS] * 3, Verdict.FAILURE)
    await desk.say(said_of(ill), said_of(well), said_of(failing(Verdict.SUCCESS, key=WEST)))

    east, west = await desk.breakers()
    troubled = await desk.breakers(troubled_only=True)

    assert (east.account, east.state, west.state) == ("accounts/east", pb.BREAKER_STATE_OPEN, pb.BREAKER_STATE_CLOSED)
    assert (east.process_count, east.open_process_count) == (2, 1)
    assert (east.call_count, east.failure_count) == (4, 1)
    assert east.HasField("probe_time")
    assert not west.HasField("probe_time")
    assert troubled == [east]


async def test_what_an_order_holds_is_seen_before_anybody_calls(desk: Desk) -> None:
    """An operator sees at once what his order is about."""
    await desk.order(pb.OpenBreakerRequest)

    found = await desk.breakers()

    assert [(one.account, one.model, one.state, one.forced) for one in found] == [
        ("accounts/east", "flash", pb.BREAKER_STATE_OPEN, True)
    ]


async def test_targets_come_by_tier_and_rank_with_their_health(desk: Desk) -> None:
    """Also choices that no account serves: a tier that looks longer than it is."""
    await desk.say(said_of(failing(*[Verdict.FAILURE] * 5)))

    answer = await desk.plane.call(pb.ListTargetsRequest())

    rows = [(one.tier, one.rank, one.weight, one.account, one.model) for one in answer.targets]
    assert rows == [
        ("tiers/fast", 0, 3, "accounts/east", "flash"),
        ("tiers/fast", 0, 3, "accounts/west", "flash"),
        ("tiers/fast", 1, 1, "", "gemma"),
    ]
    assert [one.breaker.state for one in answer.targets] == [pb.BREAKER_STATE_OPEN, 0, 0]
    east = answer.targets[0]
    assert (east.upstream_kind, east.endpoint) == (generation_pb2.UPSTREAM_KIND_VERTEX, "vertex")


async def test_head_room_is_what_all_processes_leave(desk: Desk) -> None:
    """Limits of the catalogue, lowered by what a process has learned; what they use is summed up."""
    bucket = {"account": "east", "model": "flash", "limits": {}, "cooling_seconds": 0.0}
    use = {"REQUESTS_PER_MINUTE": 30, "CONCURRENT_CALLS": 2}
    learned = {**bucket, "used": use, "limits": {"REQUESTS_PER_MINUTE": 80}, "cooling_seconds": 5.0}
    await desk.say(
        {"buckets": [{**bucket, "used": use}], "queue": {"waiting": {"BATCH": 4, "CRITICAL": 0}}},
        {"buckets": [learned], "queue": {"waiting": {"BATCH": 1}}},
    )

    answer = await desk.plane.call(pb.ListTargetsRequest(account="accounts/east"))

    (east,) = answer.targets
    (room,) = east.head_rooms
    assert (room.metric, room.model, room.limit, room.used) == (
        pb.HeadRoom.METRIC_REQUESTS_PER_MINUTE,
        "flash",
        80,
        60,
    )
    assert east.in_flight_count == 4
    assert east.HasField("cooling_end_time")
    assert [(one.priority, one.count) for one in answer.waiting_calls] == [(generation_pb2.PRIORITY_BATCH, 5)]
    assert answer.process_count == 2


async def test_pages_of_targets_meet(desk: Desk) -> None:
    """One after the other, none twice."""
    request = pb.ListTargetsRequest(page_size=1)
    found = []
    while True:
        page = await desk.plane.call(request)
        found += [(one.account, one.model) for one in page.targets]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token

    assert found == [("accounts/east", "flash"), ("accounts/west", "flash"), ("", "gemma")]
