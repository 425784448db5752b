"""AuditService over real PostgreSQL: pages, what follows, what is taken out, and that taking out is on the trail."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tollhouse.admin.v1 import audit_pb2 as pb
from tollhouse_admin.audit_proofs import Part, Report, verify_trail
from tollhouse_server.api.call import Call
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.services.audit_service import AuditService
from tollhouse_server.audit.anchor import Anchor
from tollhouse_server.audit.chores import AuditChores, Cadence
from tollhouse_server.audit.personal import PersonalData
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import InvalidRequest
from tollhouse_server.telemetry.metrics import Metrics
from tollhouse_server.vault.signing import Purpose, SigningKey

from tests.integration.audit.conftest import event, write
from tests.integration.audit.test_checkpoints import AuditKey
from tests.integration.audit.test_personal import NoKeys, call_from, witness_of

ACME = "tenants/acme"


class Counter:
    """The service at its counter, with the housekeeper's chores behind it."""

    def __init__(self, database: Database, directory: Path) -> None:
        key = SigningKey(AuditKey(), "audit", purpose=Purpose.AUDIT)
        self.database = database
        self.service = AuditService(
            database,
            PageTokens(b"p"),
            witness=witness_of(database, PersonalData(NoKeys())),
            key=key,
            anchor=Anchor(directory),
        )
        self.chores = AuditChores(
            database,
            key=key,
            anchor=Anchor(directory),
            cadence=Cadence(events=1, seconds=0.0),
            months=0,
            metrics=Metrics(CollectorRegistry()),
        )

    @staticmethod
    def call(method: str) -> Call:
        """Return a call of an administrator of the platform, in tenant acme."""
        return replace(call_from("ipv4:192.0.2.1:1", rpc=f"tollhouse.admin.v1.AuditService/{method}"), domain="acme")


@pytest.fixture
async def counter(database: Database, tmp_path: Path) -> AsyncIterator[Counter]:
    for number in range(7):
        await write(database, event("acme", number, kind="PERMISSION_DENIED" if number == 5 else "ACT"))
    await write(database, event("bolt"))
    yield Counter(database, tmp_path)


async def test_a_search_goes_page_by_page_from_either_end(counter: Counter) -> None:
    """The newest first unless asked otherwise; no event twice, none left out, none of another tenant."""
    for oldest_first in (False, True):
        request = pb.SearchAuditEventsRequest(parent=ACME, page_size=3, oldest_first=oldest_first)
        found: list[int] = []
        while True:
            page = await counter.service.search_audit_events(request, counter.call("SearchAuditEvents"))
            found += [one.sequence for one in page.audit_events]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token

        assert found == sorted(range(1, 8), reverse=not oldest_first)


async def test_a_search_answers_its_filters_with_whole_events(counter: Counter) -> None:
    """Before and after as they were."""
    request = pb.SearchAuditEventsRequest(parent=ACME, kind=pb.AuditEvent.KIND_PERMISSION_DENIED)

    page = await counter.service.search_audit_events(request, counter.call("SearchAuditEvents"))

    (one,) = page.audit_events
    assert (one.sequence, one.kind, one.count) == (6, pb.AuditEvent.KIND_PERMISSION_DENIED, 1)
    assert (one.personal, one.actor) == (pb.AuditEvent.PERSONAL_NONE, f"{ACME}/principals/jo")
    assert one.before["n"] == 5
    assert one.time == one.start_time or one.time.seconds - one.start_time.seconds <= 1


async def test_who_follows_gets_what_comes_and_goes_on_where_he_stopped(counter: Counter) -> None:
    """From now on, or behind an event that he has."""
    behind = pb.TailAuditEventsRequest(parent=ACME, after_sequence=5)
    stream = counter.service.tail_audit_events(behind, counter.call("TailAuditEvents"))
    assert [one.sequence for one in (await anext(stream)).audit_events] == [6, 7]
    now = counter.service.tail_audit_events(pb.TailAuditEventsRequest(parent=ACME), counter.call("TailAuditEvents"))
    assert list((await anext(now)).audit_events) == []

    await write(counter.database, event("acme"))

    assert [one.sequence for one in (await anext(now)).audit_events] == [8]
    await stream.aclose()  # type: ignore[attr-defined]
    await now.aclose()  # type: ignore[attr-defined]


async def test_an_export_verifies_and_is_on_the_trail(counter: Counter) -> None:
    """Who took out what; an export that goes on takes the event of the one before with it."""
    lines: list[str] = []
    for after, count in ((0, 7), (7, 1)):
        request = pb.ExportAuditEventsRequest(parent=ACME, after_sequence=after)
        pieces = counter.service.export_audit_events(request, counter.call("ExportAuditEvents"))
        answers = [piece async for piece in pieces]
        assert answers[-1].last_sequence == answers[-1].end_sequence == after + count
        lines += [line for piece in answers for line in piece.lines]

    report = Report()
    for _ in verify_trail([f"{line}\n".encode() for line in lines], [], report, part=Part(last_sequence=8)):
        pass

    assert not [one for one in report.findings if "known" not in one.problem and "checkpoint" not in one.problem]
    export = json.loads(lines[-1])
    assert export["activity_name"] == "ExportAuditEvents"
    assert export["unmapped"]["after"] == {"afterSequence": "0", "untilSequence": "7"}
    assert export["unmapped"]["personal"] == "LEFT_OUT"


async def test_an_export_of_a_period_has_its_events_and_no_others(counter: Counter) -> None:
    """By the database's clock: nothing of a time when there was nothing."""
    for moment, count in ((2_000_000_000, 0), (1_000_000_000, 7)):
        request = pb.ExportAuditEventsRequest(parent=ACME)
        request.start_time.FromSeconds(moment)
        request.end_time.FromSeconds(2_100_000_000)
        pieces = counter.service.export_audit_events(request, counter.call("ExportAuditEvents"))
        # The second takes the first one's event with it.
        assert sum([len(piece.lines) async for piece in pieces]) in (count, count + 1 if count else 0)


async def test_a_stored_trail_is_verified_against_its_anchor(counter: Counter) -> None:
    """The last answer says what was compared."""
    await counter.chores.sign_due()
    await counter.chores.anchor_new()

    stream = counter.service.verify_audit_trail(
        pb.VerifyAuditTrailRequest(parent=ACME), counter.call("VerifyAuditTrail")
    )
    *_, last = [answer async for answer in stream]

    assert (last.finished, last.anchored, last.sequence, last.signed_sequence) == (True, True, 7, 7)
    assert (last.checkpoint_count, list(last.findings)) == (1, [])
    listed = await counter.service.list_audit_checkpoints(
        pb.ListAuditCheckpointsRequest(parent=ACME), counter.call("ListAuditCheckpoints")
    )
    assert json.loads(listed.audit_checkpoints[0].document)["sequence"] == 7


async def test_the_platforms_trail_is_no_tenants(counter: Counter) -> None:
    """Rights on a tenant, even on the platform's own, do not open it."""
    request = pb.SearchAuditEventsRequest(parent="tenants/platform")

    with pytest.raises(InvalidRequest):
        await counter.service.search_audit_events(request, counter.call("SearchAuditEvents"))
