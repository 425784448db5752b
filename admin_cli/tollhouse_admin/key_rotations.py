"""How a rotation is watched to its end."""

import time
from collections.abc import Callable

from tollhouse.admin.v1 import upstream_keys_pb2 as pb

from tollhouse_admin.command import Session
from tollhouse_admin.failures import ExitCode, Failure
from tollhouse_admin.output import Layout, note
from tollhouse_admin.rendering import enum_text

POLL_SECONDS = 1.0

ROTATION_LAYOUT = Layout(
    ["name", "kind", "state", "step", "old_key", "new_key", "error", "remark", "creator", "create_time", "end_time"]
)


def wait_for_end(
    session: Session, rotation: pb.KeyRotation, read: Callable[[Session, str], pb.KeyRotation]
) -> pb.KeyRotation:
    """Tell of each step on stderr and return the rotation once it has succeeded or was cancelled.

    Raises:
        Failure: it was rolled back.
    """
    told = ""
    while True:
        line = _line(rotation)
        if line != told:
            note(line)
            told = line
        if rotation.state != pb.KeyRotation.STATE_RUNNING:
            break
        time.sleep(POLL_SECONDS)
        rotation = read(session, rotation.name)
    if rotation.state == pb.KeyRotation.STATE_FAILED:
        raise Failure(
            reason="ROTATION_FAILED",
            message=f"{rotation.name} was rolled back: {rotation.error}",
            advice="The old key is in use as before.",
            exit_code=ExitCode.GENERAL,
        )
    return rotation


def _line(rotation: pb.KeyRotation) -> str:
    state = enum_text(pb.KeyRotation.State.DESCRIPTOR, rotation.state)
    step = enum_text(pb.KeyRotation.Step.DESCRIPTOR, rotation.step)
    where = f"at {step}" if rotation.state == pb.KeyRotation.STATE_RUNNING else state
    return f"{rotation.name}: {where}{f' ({rotation.error})' if rotation.error else ''}"
