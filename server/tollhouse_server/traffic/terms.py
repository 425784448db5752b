"""What a call asks of the traffic, in the words that this room shares with generation."""

from collections.abc import Sequence
from typing import NamedTuple

from tollhouse_server.routing.priorities import Priority
from tollhouse_server.routing.targets import Target


class PlaceRequest(NamedTuple):
    """A call that wants a place at one of `targets`, of which there is at least one, lowest rank first.

    What it is thought to use is taken from the chosen account's buckets until the call ends. `deadline` is the
    caller's, a moment of `time.monotonic()`, in seconds. A department of twice the `weight` gets twice the turns.
    With `goes_first` a call stands before the others of its department: it had its turn already.
    """

    targets: Sequence[Target]
    tenant_id: str
    department_id: str
    priority: Priority
    input_tokens: int
    images: int
    cost_nanos: int
    deadline: float
    weight: float = 1.0
    goes_first: bool = False
