"""What it costs a worker to know who calls and whether he may: proven anew, and remembered.

Processor time of this process alone, PostgreSQL's left out; beside each figure, how many times dearer it is than a
remembered API key. A benchmark holds only that every call was admitted, never how long it took.
"""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tollhouse_server.api.chain import Arrival

from tests.bench.recorder import Recorder
from tests.drivers.issuer import Issuer, new_key, serving_issuer
from tests.drivers.postgres import TestDatabase
from tests.integration.admin.identity_plane import IdentityPlane, identity_plane
from tests.integration.admin.plane import Plane

CALLS = int(os.environ.get("BENCH_CALLS", "20_000"))
PROVEN = max(20, CALLS // 100)
ROUNDS = 5
REMEMBERED = "key_remembered"
ALGORITHMS = ("RS256", "ES256", "Ed25519")

Act = Callable[[], Awaitable[object]]


@pytest.fixture
async def acme(fresh_database: TestDatabase) -> AsyncIterator[IdentityPlane]:
    """Tenant acme with an issuer, and ada, who may read it."""
    plane = await Plane.start(fresh_database.app_dsn)
    async with serving_issuer() as issuer, identity_plane(plane, issuer) as found:
        issuer.keys = [new_key(algorithm, algorithm) for algorithm in ALGORITHMS]
        await plane.tenant("acme")
        await found.register_key("ada", ("read-only", "tenants/acme"))
        await found.register("ada", "ada")
        await found.add_provider()
        yield found
    await plane.database.close()


async def cost_us(act: Act, *, calls: int, before: Callable[[], None] = lambda: None) -> list[float]:
    """Return the processor time of a call in each of some rounds, in microseconds, the least first."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(calls):
            before()
            await act()
        spent = time.process_time() - began
        found.append(spent / calls * 1e6)
    return sorted(found)


def tokens(issuer: Issuer) -> dict[str, str]:
    """Return a token for each algorithm."""
    return {key.kid or "": issuer.token(key=key, algorithm=key.kid or "") for key in issuer.keys}


async def test_who_calls_and_may_he(recorder: Recorder, acme: IdentityPlane) -> None:
    """Every call pays the remembered figure; the other once after a change, a start, or a new token."""
    arrival = Arrival(body=b"", metadata={}, deadline=None, peer="ipv4:192.0.2.1:1")
    key = f"Bearer {acme.keys['ada']}"
    directory, authorizer = acme.directory, acme.plane.authorizer
    await acme.plane.watch.refresh()

    def proving(authorization: str) -> Act:
        return lambda: directory.authenticate(authorization, patience_seconds=60, presented=arrival)

    async def admit() -> None:
        principal = await directory.authenticate(key, patience_seconds=60, presented=arrival)
        await authorizer.authorize(principal, "tenants.get", "tenants/acme")

    figures = {"key_and_permission_remembered": await _fresh(acme, admit, CALLS)}
    figures[REMEMBERED] = await _fresh(acme, proving(key), CALLS)
    figures["key_proven"] = await _fresh(acme, proving(key), PROVEN, forgets=True)
    for algorithm, token in tokens(acme.issuer).items():
        bearer = f"Bearer {token}"
        figures[f"token_{algorithm}_remembered"] = await _fresh(acme, proving(bearer), CALLS)
        figures[f"token_{algorithm}_proven"] = await _fresh(acme, proving(bearer), PROVEN, forgets=True)

    for name, (least, *others) in figures.items():
        recorder.record(f"authorise/{name}/cpu_us_per_call", least, *others)
        recorder.record_ratios(f"authorise/{name}/ratio_to_remembered_key", [least], [figures[REMEMBERED][0]])

    assert all(figures.values())


async def _fresh(acme: IdentityPlane, act: Act, calls: int, *, forgets: bool = False) -> list[float]:
    """Measure with knowledge that stays fresh; with `forgets` each call comes after a change."""
    acme.plane.watch._heard_at = time.monotonic() + 3600
    return await cost_us(act, calls=calls, before=acme.directory.forget if forgets else lambda: None)
