"""The processes that take part now; who has died is replaced."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
from tollhouse.v1 import generation_pb2 as g

from tests.drivers.callers import prompt
from tests.drivers.load import callers
from tests.drivers.referee import Finding
from tests.faults import neighbour
from tests.faults.rig import Driven, Rig
from tests.faults.scenarios import all_of, note

_NEXT_SECONDS = 8.0
_CONNECTIONS = 4


@dataclass(slots=True)
class Cast:
    """Some workers, named worker-1 and so on, and a housekeeper."""

    rig: Rig
    workers: int = 1
    playing: dict[str, Driven] = field(default_factory=dict)

    def one(self, role: str) -> Driven:
        """Return a process of a role."""
        return self.playing[self._name(role)]

    def _name(self, role: str) -> str:
        return "housekeeper" if role == "housekeeper" else "worker-1"

    async def complete(self) -> None:
        """See to it that all are there and serve."""
        names = [f"worker-{number}" for number in range(1, self.workers + 1)] + ["housekeeper"]
        for name in names:
            if name not in self.playing or self.playing[name].ended.is_set():
                self.playing[name] = await self.rig.start(name.split("-")[0])

    async def replace(self, name: str) -> None:
        """Kill one and start another."""
        await self.rig.end(self.playing[name])
        await self.complete()

    async def renew(self, role: str) -> None:
        """Put a new process in the place of the one of a role."""
        await self.replace(self._name(role))

    async def dismiss(self) -> None:
        """Kill all."""
        for driven in self.playing.values():
            await self.rig.end(driven)

    async def next_calls(self, about: str, count: int = 3) -> list[Finding]:
        """Make calls that must succeed, and one on each way that only the neighbour goes; return those that did not."""
        await self.rig.simulator.set_pace(latency_ms=1, tokens_per_second=0)
        ways = neighbour.ways(f"And there, {about}?")
        return await self._refused(self.rig.neighbour_key, ways, about) + await self._refused(
            self.rig.key, [prompt(f"And now, {about}?")] * count, about
        )

    async def _refused(self, key: str, calls: Sequence[g.GenerateContentRequest], about: str) -> list[Finding]:
        refused: list[Finding] = []
        waiting, count = iter(calls), len(calls)
        async with callers(self.rig.stack, key, min(count, _CONNECTIONS)) as among:

            async def keep_calling(number: int) -> None:
                for call in waiting:
                    try:
                        outcome = await among[number].unary(call, seconds=_NEXT_SECONDS)
                        note(self.rig, outcome)
                    except grpc.aio.AioRpcError as error:
                        detail = f"{error.code().name}: {str(error.details())[:200]}"
                        refused.append(Finding("false refusal", about, detail))

            await all_of(keep_calling(number % len(among)) for number in range(min(count, 4 * _CONNECTIONS)))
        return refused
