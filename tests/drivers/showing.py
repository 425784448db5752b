"""A company that is worth looking at: three departments under a load that comes and goes, with troubles in between."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import grpc

from tests.drivers.callers import prompt
from tests.drivers.forks import loaded_server, loaded_tollhouse
from tests.drivers.places import servers_place
from tests.drivers.prometheus import RunningPrometheus
from tests.drivers.troubles import (
    breaker_is_open,
    credentials_are_tried,
    finance_has_work,
    month_is_closed,
    queue_is_full,
    server_is_replaced,
    settings_are_made,
    worker_is_killed,
)
from tests.drivers.watched import Watched, mixed_load, watched

_WAVE_SECONDS = 80.0
_PAUSE_SECONDS = 0.5
_TIERS = ("flash", "flash", "pro", "flash-lite")
_OTHERS = {"marketing": ("campaigns", "$0.5"), "support": ("helpdesk", "$0.5")}
"""The departments beside the first: project, and monthly budget, which does not last for a run."""


@contextmanager
def shown_company(seconds: float) -> Iterator[tuple[RunningPrometheus, float, float]]:
    """Run a company for so long at least; yield its Prometheus, and when the load began and ended as Unix seconds."""
    with (
        loaded_server() as server,
        loaded_tollhouse() as tollhouse,
        servers_place("shown") as directory,
        watched(directory, server, tollhouse) as company,
    ):
        settings_are_made(company)
        keys = [company.deployment.gateway.demo_api_key, *(_key_of(company, one, *has) for one, has in _OTHERS.items())]
        start = time.time()
        with _loaded(company, keys):
            _tell_story(company, seconds)
        yield company.prometheus, start, time.time()


def _key_of(company: Watched, department: str, project: str, amount: str) -> str:
    """Make a department with a project, a budget and a caller, and return the caller's key."""
    there = ("--tenant", "demo", "--department", department)
    here = (*there, "--project", project)
    company.tollhouse.ok("departments", "create", department, "--tenant", "demo")
    company.tollhouse.ok("projects", "create", project, *there)
    budget = ("--metric", "cost", "--window", "month", "--amount", amount)
    company.tollhouse.ok("limits", "create", f"{department}-monthly", *budget, *there)
    principal = f"{project}-service"
    company.tollhouse.ok("principals", "create", principal, "--tenant", "demo")
    company.tollhouse.ok("roles", "grant", principal, "caller", *here)
    made = json.loads(company.tollhouse.ok("keys", "create", "--principal", principal, *here, "-o", "json"))
    return str(made["secret"])


@contextmanager
def _loaded(company: Watched, keys: list[str]) -> Iterator[None]:
    """Keep a company under load until the block is left; what the load fails by is raised then."""
    ended = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(_load, company, keys, ended)
        try:
            yield
        finally:
            ended.set()
        loading.result()


def _load(company: Watched, keys: list[str], ended: threading.Event) -> None:
    """Make calls in waves, the departments in shares of their own."""
    start = time.monotonic()
    while not ended.wait(_PAUSE_SECONDS):
        wave = (1 + math.sin((time.monotonic() - start) * 2 * math.pi / _WAVE_SECONDS)) / 2
        with suppress(grpc.RpcError):
            mixed_load(company)
        for share, key in enumerate(reversed(keys), 1):
            for turn in range(round(share * 2 * wave) + 1):
                company.call(prompt("What is due? [[tokens:80]]", tier=_TIERS[turn % len(_TIERS)]), key=key)


def _tell_story(company: Watched, seconds: float) -> None:
    """Have the troubles come at their time, or once the one before is over, as long as there is time."""
    start = time.monotonic()
    for share, trouble in _STORY:
        due, now = start + share * seconds, time.monotonic()
        if now < start + seconds:
            time.sleep(max(0.0, due - now))
            trouble(company)
    time.sleep(max(0.0, start + seconds - time.monotonic()))


def _upstream_refuses(company: Watched) -> None:
    company.call(prompt("Tell me [[no-usage]]"))
    company.fault("503", count=14)
    # Not one for each model of a tier: little is served then for minutes, and there is nothing else to see.
    company.fault("429", count=2, retry_delay_seconds=20)


def _key_is_rotated(company: Watched) -> None:
    adding = ("upstream-keys", "add", "second", "--account", "main", "--key-file", "-", "--replaces", "first")
    company.tollhouse.ok(*adding, stdin="simulator-key-second")


def _in_silence(trouble: Callable[[Watched, Callable[[], None]], None]) -> Callable[[Watched], None]:
    """Return a trouble in which nobody asks anything."""
    return lambda company: trouble(company, lambda: None)


_STORY: tuple[tuple[float, Callable[[Watched], None]], ...] = (
    (0.12, _in_silence(finance_has_work)),
    (0.25, _in_silence(queue_is_full)),
    (0.33, _key_is_rotated),
    (0.40, _upstream_refuses),
    (0.50, _in_silence(breaker_is_open)),
    (0.60, _in_silence(month_is_closed)),
    (0.65, _in_silence(credentials_are_tried)),
    (0.75, _in_silence(server_is_replaced)),
    (0.85, _in_silence(worker_is_killed)),
)
"""At which share of the time what happens."""
