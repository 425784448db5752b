"""The one line of a call in the log: who called what, how it ended, what it used and cost, and where its time went."""

import logging
from typing import Any

from tollhouse_server.telemetry.logging import write_event
from tollhouse_server.telemetry.steps import UPSTREAM, CallNotes

_log = logging.getLogger("tollhouse_server.calls")
"""Has a name of its own, so that a level can be set for these lines alone."""

_DEFECTS = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS"})
_OURS = frozenset({"correlation_id", "trace_id", "tokens", "step_seconds"})
"""Ids that `tracecontext` has made or found good, and numbers under names of ours."""
_OF_ATTEMPT = ("tier", "model", "target", "account", "region", "finish_reasons", "tokens")


def log_call(notes: CallNotes) -> None:
    """Write the line of a call that has ended: at error for a defect, else at info."""
    level = logging.ERROR if notes.code in _DEFECTS else logging.INFO
    write_event(_log, level, "call", lambda: call_facts(notes), ours=_OURS)


def call_facts(notes: CallNotes) -> dict[str, Any]:
    """Return what is told of a call that has ended: ids, names, counts and money; never a key or what was said."""
    if notes.told is None:
        notes.told = _facts(notes)
    return notes.told


def _facts(notes: CallNotes) -> dict[str, Any]:
    said: dict[str, Any] = {
        "rpc": notes.rpc,
        "code": notes.code,
        "seconds": round(notes.seconds, 6),
        "correlation_id": notes.correlation_id,
        "trace_id": notes.trace.trace_id,
        **notes.facts,
    }
    attempts, bookings = [], []
    for step in notes.steps:
        if step.name == UPSTREAM:
            attempts.append(step.facts)
        elif step.name == "settle":
            bookings.append(step.facts)
    if attempts:
        last = attempts[-1]
        said |= {name: value for name in _OF_ATTEMPT if (value := last.get(name))}
        said["attempts"] = len(attempts)
        said["attempt_id"] = last["attempt_id"]
    if bookings:
        # Of several attempts each costs what it was booked at; only the last one's hold says what the call may cost.
        said["cost_nanos"] = sum([booked["cost_nanos"] for booked in bookings])
        said["held_nanos"] = bookings[-1]["held_nanos"]
        said["booked"] = bookings[-1]["outcome"]
    if notes.steps:
        said["step_seconds"] = notes.seconds_by_step()
    return said
