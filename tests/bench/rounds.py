"""How long and how often is measured: quick unless the environment says otherwise."""

import os
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tollhouse_server.transport_choice import chosen

Item = TypeVar("Item")


def setting(name: str, default: str) -> str:
    """Return a variable of the environment."""
    return os.environ.get(name, default)


ROUNDS = int(setting("BENCH_ROUNDS", "3"))
SECONDS = float(setting("BENCH_SECONDS", "1"))
SIZES = [int(one) for one in setting("BENCH_SIZES", "10,1000").split(",")]
TRANSPORT = setting("BENCH_TRANSPORT", chosen("auto").transport)
"""That of benches which are not about transports: what serves by default."""

RECORDS = [int(one) for one in setting("BENCH_RECORDS", "0,100000").split(",")]


def in_turns(items: Sequence[Item], rounds: int = ROUNDS) -> Iterator[Item]:
    """Yield each item once a round, each round from another one on: what a neighbour does meets all alike."""
    for number in range(rounds):
        first = number % len(items)
        yield from (*items[first:], *items[:first])
