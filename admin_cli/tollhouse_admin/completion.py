"""What the shell offers at a Tab: profiles from the file, ids from the server, silently nothing when it cannot tell."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tollhouse_admin.connection import Connection, connect
from tollhouse_admin.endpoints import Surroundings, find_endpoint
from tollhouse_admin.failures import Failure
from tollhouse_admin.profiles import configuration_path, load

PATIENCE_SECONDS = 1.0


def complete_profiles(incomplete: str) -> list[str]:
    """Offer the profiles of the configuration file."""
    try:
        profiles = load(configuration_path(os.environ)).profiles
    except Failure:
        return []
    return [name for name in profiles if name.startswith(incomplete)]


def offered(
    incomplete: str, entries: Callable[[Connection], Iterator[str]], *, profile: str | None = None
) -> list[str]:
    """Offer the last parts of the names that the server lists; an unreachable or refusing server offers nothing."""
    surroundings = Surroundings(environment=os.environ, directory=Path.cwd())
    try:
        endpoint = find_endpoint(surroundings, profile=profile, as_caller=False)
        with connect(endpoint, timeout_seconds=PATIENCE_SECONDS) as connection:
            ids = [name.rsplit("/", 1)[-1] for name in entries(connection)]
    except Failure:
        return []
    return [each for each in ids if each.startswith(incomplete)]
