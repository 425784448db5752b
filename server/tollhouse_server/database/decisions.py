"""What one person asks for and another decides on: who may take which step, and from which state it leads where."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from tollhouse_server.errors import RequesterOnly, SecondPersonNeeded, WrongState

REQUESTED: Final = "REQUESTED"
EXPIRED: Final = "EXPIRED"
"""What a request is, decided or not, from its expiry on; time is not written down, it is looked at."""


class By(Enum):
    """Who may take a step, besides having the permission."""

    ANYBODY = "anybody"
    ANOTHER = "another"
    """Never who asked, with whichever credential."""

    REQUESTER = "requester"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What can be done with a request: from which state, to which, and by whom."""

    needed: str
    leads_to: str
    by: By = By.ANYBODY


APPROVE: Final = Step(needed=REQUESTED, leads_to="APPROVED", by=By.ANOTHER)
REJECT: Final = Step(needed=REQUESTED, leads_to="REJECTED")
WITHDRAW: Final = Step(needed=REQUESTED, leads_to="WITHDRAWN", by=By.REQUESTER)
REVOKE: Final = Step(needed="APPROVED", leads_to="REVOKED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A step that somebody takes: `by` is a principal's resource name, with whichever credential he came."""

    step: Step
    by: str
    reason: str
    expected_version: int | None

    def taken_at(self, moment: datetime) -> dict[str, object]:
        """Return what the row of the request says from then on."""
        return {
            "state": self.step.leads_to,
            "decided_by": self.by,
            "decided_at": moment,
            "decision_reason": self.reason,
        }


def require_step(name: str, decision: Decision, *, state: str, requester: str) -> None:
    """Return if the step may be taken now and by him.

    Raises:
        WrongState: the step does not lead on from the state that the request is in.
        SecondPersonNeeded: it would be approved by who asked for it.
        RequesterOnly: it would be withdrawn by somebody else.
    """
    step, is_own = decision.step, decision.by == requester
    if state != step.needed:
        raise WrongState(name=name, state=state, needed=step.needed)
    if step.by is By.ANOTHER and is_own:
        raise SecondPersonNeeded(name=name)
    if step.by is By.REQUESTER and not is_own:
        raise RequesterOnly(name=name)
