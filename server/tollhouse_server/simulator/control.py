"""Faults on the control plane: the token endpoint and the API Keys API, hit only by plans that name the method."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import Response

from tollhouse_server.simulator.delivery import Delivery, Pace
from tollhouse_server.simulator.faults import FaultPlan, FaultPlans
from tollhouse_server.simulator.keys import Caller

_JSON = "application/json; charset=UTF-8"


@dataclass(frozen=True, slots=True)
class Struck:
    """What happens to an answer on its way: nothing, or what a plan wants."""

    plan: FaultPlan | None

    @property
    def is_lost(self) -> bool:
        """Whether the call never arrives: nothing is done, and the answer that nobody gets does not matter."""
        return self.plan is not None and not self.plan.served

    def deliver(self, body: bytes) -> Response:
        """Send the answer, slow, spoiled or broken as planned."""
        if self.plan is None:
            return Response(body, media_type=_JSON)
        return Delivery([body], framed=False, media_type=_JSON, headers={}, pace=Pace(), fault=self.plan)


def strike(faults: FaultPlans, caller: Caller, method: str) -> Struck:
    """Raise the refusal that a plan wants before the call does anything, or give what happens to its answer."""
    plan = faults.strike(caller, "", method, named_only=True)
    refusal = plan.refusal("", caller=caller) if plan else None
    if refusal is not None:
        raise refusal
    return Struck(plan)
