"""The processes that take part now; who has died is replaced."""

from dataclasses import dataclass, field

import grpc

from tests.drivers.callers import prompt
from tests.drivers.load import callers
from tests.drivers.referee import Finding
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
        return self.playing["housekeeper" if role == "housekeeper" else "worker-1"]

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

    async def dismiss(self) -> None:
        """Kill all."""
        for driven in self.playing.values():
            await self.rig.end(driven)

    async def next_calls(self, about: str, count: int = 3) -> list[Finding]:
        """Make calls that must succeed; return those that did not."""
        await self.rig.simulator.set_pace(latency_ms=1, tokens_per_second=0)
        refused: list[Finding] = []
        waiting = iter(range(count))
        async with callers(self.rig.stack, self.rig.key, min(count, _CONNECTIONS)) as among:

            async def keep_calling(number: int) -> None:
                for _ in waiting:
                    try:
                        outcome = await among[number].unary(prompt(f"And now, {about}?"), seconds=_NEXT_SECONDS)
                        note(self.rig, outcome)
                    except grpc.aio.AioRpcError as error:
                        detail = f"{error.code().name}: {str(error.details())[:200]}"
                        refused.append(Finding("false refusal", about, detail))

            await all_of(keep_calling(number % len(among)) for number in range(min(count, 4 * _CONNECTIONS)))
        return refused
