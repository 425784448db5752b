"""What a case of the upstream matrix came to: calls, attempts and breakers, each by two witnesses that must agree."""

import asyncio
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.drivers.referee import Finding
from tests.faults.upstream_load import Call, Load
from tests.faults.upstream_rig import MODELS, REGIONS, UpstreamRig

LOST_SHARE = 0.001
RETRY_SHARE = 0.1

_LOOK_EVERY_SECONDS = 0.5
_LOOKS = 8
"""So often the command line may show another state than the metrics, which may change in between."""

_RECORDS = """
SELECT request_id::text, kind, outcome, account_id FROM usage_record
WHERE settled_at >= $1 AND kind <> 'ADJUSTMENT' ORDER BY dispatched_at
"""


class Key(NamedTuple):
    """What a breaker watches."""

    account: str
    region: str
    model: str


class Attempt(NamedTuple):
    """How one attempt was booked."""

    kind: str
    outcome: str
    account: str


def keys_of(accounts: Iterable[str]) -> set[Key]:
    """Return the breakers of accounts, named as in `upstream_rig`."""
    return {Key(one, REGIONS.get(one.split("-")[1], ""), model) for one in accounts for model in MODELS}


@dataclass(slots=True)
class Watch:
    """The breakers as the metrics endpoint shows them, all along; moments are seconds of `time.monotonic()`."""

    rig: UpstreamRig
    changes_before: Counter[tuple[Key, str]] = field(default_factory=Counter)
    lines_before: int = 0
    opened_at: dict[Key, float] = field(default_factory=dict)
    troubled_at: dict[Key, float] = field(default_factory=dict)
    """When each was last seen in another state than closed."""

    states: dict[Key, int] = field(default_factory=dict)

    async def begin(self) -> None:
        """Note where the counts stand."""
        self.changes_before = _changes(await _metrics(self.rig))
        self.lines_before = len(self.rig.log_lines("breaker_changed"))

    async def look(self) -> None:
        """Look once."""
        self.states, now = _states(await _metrics(self.rig)), time.monotonic()
        for key, state in self.states.items():
            if state:
                self.troubled_at[key] = now
            if state == 2:
                self.opened_at.setdefault(key, now)

    async def keep_looking(self) -> None:
        """Look again and again."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    @property
    def is_calm(self) -> bool:
        """Tell whether every breaker was closed at the last look."""
        return not any(self.states.values())

    async def differences(self) -> list[Finding]:
        """Return where log and metrics disagree on how often breakers changed, to be called when all is calm."""
        lines = self.rig.log_lines("breaker_changed")[self.lines_before :]
        logged = Counter((Key(one["account"], one["region"], one["model"]), str(one["state"])) for one in lines)
        counted = _changes(await _metrics(self.rig)) - self.changes_before
        return [
            Finding(
                "log and metrics differ", f"{'/'.join(key)} to {state}", f"{logged[key, state]}, {counted[key, state]}"
            )
            for key, state in logged.keys() | counted.keys()
            if logged[key, state] != counted[key, state]
        ]

    async def shown_otherwise(self, moment: str) -> list[Finding]:
        """Return where `tollhouse breakers list` shows another state than the metrics."""
        differing: list[Finding] = []
        for _ in range(_LOOKS):
            await self.look()
            shown = await asyncio.to_thread(self.rig.cli.json, "breakers", "list", "--limit", "1000")
            differing = [
                Finding("breakers list and metrics differ", "/".join(key), f"{moment}: {state}, {self.states.get(key)}")
                for key, state in map(_listed, shown)
                if self.states.get(key, 0) != state
            ]
            if not differing:
                break
        return differing

    def judge(self, expected: set[Key], allowed: set[Key], *, struck_at: float, mended_at: float) -> list[Finding]:
        """Return which breakers did not open that should, which did that should not, and which are not closed."""
        opened = {key for key, at in self.opened_at.items() if struck_at <= at}
        unexpected = self.troubled_at.keys() - expected - allowed
        return [
            *(Finding("a breaker did not open", "/".join(key)) for key in expected - opened),
            *(Finding("a breaker opened on a sound target", "/".join(key)) for key in unexpected),
            *(Finding("a breaker stays open", "/".join(key)) for key, state in self.states.items() if state),
            *(
                Finding("a breaker opened though all was mended", "/".join(key))
                for key, at in self.opened_at.items()
                if at > mended_at + 2 * _LOOK_EVERY_SECONDS
            ),
        ]


@asynccontextmanager
async def watching(rig: UpstreamRig) -> AsyncIterator[Watch]:
    """Watch the breakers while the block runs."""
    watch = Watch(rig)
    await watch.begin()
    task = asyncio.create_task(watch.keep_looking())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


async def attempts_since(rig: UpstreamRig, since: datetime) -> dict[str, list[Attempt]]:
    """Return the attempts booked since a moment by their calls' request ids, in their order."""
    found: dict[str, list[Attempt]] = {}
    for row in await rig.root.fetch(_RECORDS, since):
        attempt = Attempt(row["kind"], row["outcome"], row["account_id"])
        found.setdefault(row["request_id"], []).append(attempt)
    return found


def judge_calls(calls: Sequence[Call], attempts: Mapping[str, Sequence[Attempt]]) -> list[Finding]:
    """Return what is wrong with how calls ended, but for those that were lost."""
    findings = []
    for call in calls:
        made = attempts.get(call.request_id, ())
        kinds = [one.kind for one in made]
        detail = f"{call.code} {call.reason}, {call.chunks} chunks, {kinds}"
        wrong = {
            "a broken stream has no typed end": bool(call.code and call.chunks) and not call.broke_midway,
            "a broken stream was begun anew": call.broke_midway and kinds[-1:] != ["SUSPENSE"],
            "served, but not settled exactly once": not call.code and kinds.count("SETTLED") != 1,
        }
        findings += [Finding(rule, call.request_id, detail) for rule, is_so in wrong.items() if is_so]
    return findings


def lost(calls: Iterable[Call]) -> list[Call]:
    """Return the calls that failed though one target at least was sound all along, and the caller had the time."""
    return [call for call in calls if call.code and not call.broke_midway]


def figures(load: Load, phase: str, attempts: Mapping[str, Sequence[Attempt]]) -> dict[str, Any]:
    """Return what a phase came to."""
    calls = load.of(phase)
    served = sorted(call.seconds for call in calls if not call.code and call.seconds is not None)
    made = [attempt for call in calls for attempt in attempts.get(call.request_id, ())]
    first = sum(bool(attempts.get(call.request_id)) for call in calls)
    failed = Counter(f"{one.code} {one.reason}" + (" midway" if one.broke_midway else "") for one in calls if one.code)
    saved = len(calls) - sum(call.broke_midway for call in calls)
    return {
        "calls": len(calls),
        "served": len(served),
        "served_percent": round(100 * len(served) / saved, 3) if saved else None,
        "broke_midway": len(calls) - saved,
        "failed": dict(failed),
        "p50_ms": _at(served, 0.5),
        "p99_ms": _at(served, 0.99),
        "longest_ms": _at(served, 1.0),
        "attempts": len(made),
        "retry_percent": round(100 * (len(made) - first) / max(1, len(calls)), 2),
        "booked": dict(Counter(one.kind for one in made)),
        "outcomes": dict(Counter(f"{one.outcome.split(':')[0]}" for one in made)),
    }


def _at(ordered: Sequence[float], part: float) -> int | None:
    return round(1000 * ordered[min(len(ordered) - 1, int(len(ordered) * part))]) if ordered else None


async def _metrics(rig: UpstreamRig) -> str:
    def read() -> str:
        with urllib.request.urlopen(rig.gateway.metrics, timeout=10) as answer:  # noqa: S310 - our own endpoint
            return str(answer.read().decode())

    return await asyncio.to_thread(read)


def _samples(text: str, name: str) -> Iterable[tuple[Mapping[str, str], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                yield sample.labels, sample.value


def _key(labels: Mapping[str, str]) -> Key:
    return Key(labels["account"], labels["region"], labels["model"])


def _states(text: str) -> dict[Key, int]:
    return {_key(labels): int(value) for labels, value in _samples(text, "tollhouse_breaker_state")}


def _changes(text: str) -> Counter[tuple[Key, str]]:
    found = _samples(text, "tollhouse_breaker_changes_total")
    return Counter({(_key(labels), labels["state"]): int(value) for labels, value in found})


_SHOWN = {"BREAKER_STATE_CLOSED": 0, "BREAKER_STATE_HALF_OPEN": 1, "BREAKER_STATE_OPEN": 2}


def _listed(row: Mapping[str, Any]) -> tuple[Key, int]:
    name, model = str(row["account"]).rpartition("/")[2], str(row["model"]).rpartition("/")[2]
    return Key(name, str(row.get("region", "")), model), _SHOWN[row["state"]]
