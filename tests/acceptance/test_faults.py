"""A quick selection of the fault suite (`make faults`): one of each kind. some 30 s."""

from collections.abc import Iterator

import pytest

from tests.drivers.deployment import Parts
from tests.drivers.forks import Forks
from tests.drivers.stack import RunningStack
from tests.faults import boundary_campaign, random_kills, store_trouble
from tests.faults.boundaries import all_boundaries, files
from tests.faults.boundary_campaign import case_at
from tests.faults.cast import Cast
from tests.faults.gate import AFTER, BEFORE
from tests.faults.rig import open_rig, rig_parts
from tests.faults.scenarios import SCENARIOS
from tests.faults.strikes import CANCEL, KILL, RESET_POSTGRES, RESET_UPSTREAM, STOP

MIXED = SCENARIOS[0]


@pytest.fixture(scope="module")
def parts(server_forks: Forks) -> Iterator[tuple[Parts, RunningStack]]:
    """PostgreSQL, OpenBao, the simulator, and a process that forks workers."""
    with rig_parts(server_forks) as running:
        yield running


def test_every_await_of_a_call_is_a_boundary() -> None:
    """What is struck is found in the code: as many boundaries as the files have points at which a task gives way."""
    found = all_boundaries()

    awaits = sum(path.read_text().count("await ") for path in files())
    assert len({boundary.name for boundary in found}) == len(found)
    assert 0.9 * awaits < len([one for one in found if one.kind == "await"]) <= awaits
    assert {one.kind for one in found} == {"await", "enter", "exit", "next"}


@pytest.mark.parametrize(
    ("kind", "place", "side", "fault"),
    [
        ("next", "generation/streaming.py:Streaming._drive", AFTER, KILL),
        ("await", "ledger/transaction.py:TickTransaction._write:", BEFORE, KILL),
        ("await", "generation/streaming.py:ChunkPipe.chunks", BEFORE, CANCEL),
        ("await", "ledger/transaction.py:TickTransaction._write:", AFTER, RESET_POSTGRES),
        ("await", "upstream/gemini.py:GeminiUpstream.call", BEFORE, RESET_UPSTREAM),
        ("await", "generation/attempts.py:Attempts.open", AFTER, STOP),
    ],
)
async def test_a_fault_at_a_boundary_loses_and_doubles_nothing(
    parts: tuple[Parts, RunningStack], kind: str, place: str, side: str, fault: str
) -> None:
    """The simulator's log is what is settled or in suspense, nothing stays held, and the next calls are served."""
    case = case_at(kind, place, side, fault, MIXED)

    async with open_rig(*parts) as rig:
        has_struck, findings = await boundary_campaign.run_case(Cast(rig), case)

    assert has_struck
    assert findings == []


async def test_random_kills_and_hang_ups_lose_and_double_nothing(parts: tuple[Parts, RunningStack]) -> None:
    """Some kill -9 at random moments under load, of workers and of the housekeeper."""
    async with open_rig(*parts) as rig:
        findings, measured = await random_kills.block(Cast(rig, workers=2), seed=7, kills=3)

    assert findings == []
    assert measured["hang_ups"] > 0


async def test_a_database_that_stands_still_for_three_seconds_costs_patient_callers_nothing(
    parts: tuple[Parts, RunningStack],
) -> None:
    """Their calls wait and succeed; all of them are booked."""
    frozen = store_trouble.TROUBLES[0]

    async with open_rig(*parts) as rig:
        cast = Cast(rig)
        findings, measured = await store_trouble.befall(cast, frozen, [store_trouble.PATIENT] * 6, seed=1, seconds=3)

    assert findings == []
    assert measured["longest"]["30 s"] > 2
