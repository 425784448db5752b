"""How a part that ends is restarted."""

import pytest
from tollhouse_server.embedded.child import Child
from tollhouse_server.embedded.errors import EmbeddedStartFailed
from tollhouse_server.embedded.watch import RestartPolicy, keep_running


class NeverRuns:
    """A part that ends as soon as it starts."""

    def __init__(self) -> None:
        self.starts = 0

    @property
    def child(self) -> Child | None:
        return None

    async def start(self) -> None:
        self.starts += 1

    async def stop(self) -> None:
        return None


def test_waits_double_up_to_the_longest() -> None:
    """A part that cannot run does not take the machine with it."""
    policy = RestartPolicy(first_seconds=1.0, longest_seconds=5.0)

    assert [policy.wait_seconds(failures) for failures in (1, 2, 3, 4, 1000)] == [1.0, 2.0, 4.0, 5.0, 5.0]


async def test_a_part_that_ends_again_and_again_is_given_up() -> None:
    """The error says how often it was tried."""
    part = NeverRuns()

    with pytest.raises(EmbeddedStartFailed, match="4 times in a row"):
        await keep_running("part", part, RestartPolicy(first_seconds=0.0, give_up_after=3))

    assert part.starts == 3
