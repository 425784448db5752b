"""Refusals on their way to the trail: counted together, bounded, and none forgotten while PostgreSQL is away."""

import json
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tollhouse_server.audit.personal import Source
from tollhouse_server.audit.refusals import BURST, DETAILS_DROPPED, MOST_WAITING, Refusal, RefusalLog
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import StoreUnavailable
from tollhouse_server.telemetry.metrics import Metrics

from tests.integration.audit.conftest import links_of

DENIED = Refusal(
    kind="PERMISSION_DENIED",
    tenant_id="acme",
    actor="tenants/acme/principals/jo",
    credential_id="abcdefghijkl",
    method="tollhouse.admin.v1.TenantService.ListTenants",
    permission="tenants.list",
    resource="platform",
    reason="PERMISSION_DENIED",
    correlation_id="c",
    source=Source(),
)
UNKNOWN = replace(
    DENIED,
    kind="AUTHENTICATION_FAILURE",
    tenant_id="platform",
    actor="",
    credential_id="",
    permission="",
    resource="",
    reason="CREDENTIALS_INVALID:UNKNOWN",
)


class Clock:
    """Stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def trail(database: Database, tenant: str) -> list[dict[str, Any]]:
    return [json.loads(link.line) for link in await links_of(database, tenant)]


def refusal_log(database: Database, clock: Clock) -> RefusalLog:
    return RefusalLog(database, Metrics(CollectorRegistry()), clock=clock)


async def test_like_refusals_are_one_event_with_their_number(database: Database) -> None:
    """By kind, by who or whence, and by what was called; each in its tenant's trail."""
    log = refusal_log(database, Clock())
    for _ in range(500):
        log.note(DENIED)
        log.note(replace(UNKNOWN, source=Source(address="192.0.2.1")))
    log.note(replace(UNKNOWN, source=Source(address="192.0.2.2")))
    log.note(replace(DENIED, method="tollhouse.admin.v1.TenantService.CreateTenant"))

    assert await log.write() == 4

    denied, unknown = await trail(database, "acme"), await trail(database, "platform")
    assert [(one["count"], one["activity_name"]) for one in denied] == [(500, "ListTenants"), (1, "CreateTenant")]
    assert [one["count"] for one in unknown] == [500, 1]
    assert (denied[0]["status_id"], denied[0]["metadata"]["event_code"]) == (2, "PERMISSION_DENIED")
    assert denied[0]["unmapped"]["permission"] == "tenants.list"
    assert denied[0]["start_time"] <= denied[0]["time"]


async def test_a_flood_from_everywhere_neither_fills_the_disk_nor_hides(database: Database) -> None:
    """A burst, then so many a second; what waits is bounded, and beyond that the number is still right."""
    clock = Clock()
    log = refusal_log(database, clock)
    for number in range(3 * MOST_WAITING):
        log.note(replace(UNKNOWN, source=Source(address=f"2001:db8::{number:x}")))

    assert log.waiting == MOST_WAITING + 1
    assert await log.write() == BURST
    assert await log.write() == 0
    clock.now += 10
    assert await log.write() == 20
    while log.waiting:
        clock.now += 100
        await log.write()

    found = await trail(database, "platform")
    assert sum(one["count"] for one in found) == 3 * MOST_WAITING
    dropped = [one for one in found if one["status_code"] == DETAILS_DROPPED]
    assert [one["count"] for one in dropped] == [2 * MOST_WAITING]


async def test_refusals_wait_for_postgresql_and_are_counted_on(database: Database) -> None:
    """Those that were not written, and those that came meanwhile."""
    away = Database("postgresql://nobody@127.0.0.1:1/nothing")
    log = refusal_log(away, Clock())
    log.note(DENIED)
    log.note(DENIED)
    with pytest.raises(StoreUnavailable):
        await log.write()
    log.note(DENIED)
    await away.close()

    log._database = database
    await log.write()

    assert [one["count"] for one in await trail(database, "acme")] == [3]
