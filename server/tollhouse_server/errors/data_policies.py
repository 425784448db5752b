"""What a data policy does not let pass."""

from dataclasses import dataclass

from tollhouse_server.errors.base import TollhouseError


@dataclass(eq=False, kw_only=True)
class DataPolicyBlocked(TollhouseError):
    """A prompt or an answer has a value that the tenant's data policy does not let pass; the value is told nobody.

    `direction` is PROMPT (nothing was sent or charged) or ANSWER (the call is booked); `field` is where in the prompt.
    """

    reason = "DATA_POLICY_BLOCKED"
    detector: str
    direction: str
    field: str = ""

    def message(self) -> str:
        if self.direction == "ANSWER":
            return (
                f"The data policy blocks the answer: it has a value that {self.detector} finds. "
                "The call was served and is charged."
            )
        return (
            f"The data policy blocks the prompt: {self.field} has a value that {self.detector} finds; "
            "nothing was sent or charged. Leave the value out."
        )
