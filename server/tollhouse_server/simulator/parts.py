"""What one simulator consists of."""

from __future__ import annotations

from dataclasses import dataclass

from tollhouse_server.simulator.api_keys_door import ApiKeysDoor
from tollhouse_server.simulator.capacity import Capacity
from tollhouse_server.simulator.door import Door
from tollhouse_server.simulator.token_door import TokenDoor


@dataclass(frozen=True, slots=True)
class Simulator:
    """The doors, each over its own parts, and what they can take together."""

    door: Door
    tokens: TokenDoor
    api_keys: ApiKeysDoor
    capacity: Capacity
