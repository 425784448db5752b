"""Kept prompts and answers from the command line to the simulator and back, and where they must not be."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from uuid import uuid4

from tests.drivers.callers import bearer, generation_stub, prompt
from tests.drivers.command_line import CommandLine, Company
from tests.drivers.stack import RunningStack

Found = TypeVar("Found")


def _soon(look: Callable[[], Found | None]) -> Found:
    """Ask until the answer is something: what is written behind a caller's back takes a moment."""
    deadline = time.monotonic() + 30
    while not (found := look()):
        assert time.monotonic() < deadline
    return found


def _reader(tollhouse: CommandLine, company: Company) -> str:
    """Make somebody who may read the company's content, and return his key."""
    tenant = f"tenants/{company.tenant}"
    tollhouse.ok("principals", "create", "reader", "--tenant", tenant, "--kind", "service-account")
    key = tollhouse.json("keys", "create", "--principal", "reader", "--tenant", tenant)["secret"]
    tollhouse.ok("roles", "grant", "reader", "content-reader", "--tenant", tenant)
    return str(key)


def _call(stack: RunningStack, company: Company, canary: str, *, stream: bool) -> str:
    """Send a canary and return the id of the attempt that answered."""
    with generation_stub(stack) as stub:
        if not stream:
            answer = stub.GenerateContent(prompt(canary), metadata=bearer(company.key))
            return str(answer.outcome.receipt.attempt_id)
        return str(
            [*stub.StreamGenerateContent(prompt(canary), metadata=bearer(company.key))][-1].outcome.receipt.attempt_id
        )


def test_content_is_kept_read_and_erased_and_is_nowhere_else(
    tollhouse: CommandLine, company: Company, running_stack: RunningStack
) -> None:
    """Off until a tenant wants it; then sealed: no table, log or metric has a word of it, and an erasure is final."""
    here = ("--tenant", company.tenant)
    canary = f"canary-{uuid4().hex}"
    _call(running_stack, company, canary, stream=False)
    assert tollhouse.json("content", "policy", *here)["keep"] == "CONTENT_KEEP_NONE"
    preview = tollhouse.json("content", "set-policy", *here, "--keep", "prompts-and-answers", "--dry-run")
    tollhouse.ok("content", "set-policy", *here, "--keep", "prompts-and-answers", "--retention-days", "7")
    key = _reader(tollhouse, company)

    def kept() -> set[str]:
        _call(running_stack, company, canary, stream=False)
        return _kept(running_stack, company)

    first = _soon(kept).pop()
    streamed = _call(running_stack, company, canary, stream=True)
    _soon(lambda: streamed in _kept(running_stack, company))
    listed = tollhouse.json("content", "list", *here, key=key)
    shown = tollhouse.json("content", "show", streamed, *here, key=key)
    text = tollhouse.ok("content", "text", first, *here, key=key)
    denied = tollhouse("content", "show", first, *here)
    unasked = tollhouse("content", "erase", company.tenant, "--yes")
    counted = tollhouse.json("content", "delete-all", *here, "--dry-run")
    tollhouse.ok("content", "erase", company.tenant, "--yes", "--really", company.tenant)
    # A worker that has the key in memory hears of its end within two seconds.
    erased = _soon(lambda: _refused(tollhouse("content", "show", first, *here, key=key)))

    assert preview["after"]["keep"] == "CONTENT_KEEP_PROMPTS_AND_ANSWERS"
    assert {one["name"].rpartition("/")[2] for one in listed} >= {first, streamed}
    assert canary in text
    assert canary in shown["promptJson"]
    assert isinstance(json.loads(shown["answerJson"]), list)
    assert "contents.get is required" in denied.stderr
    assert (unasked.returncode, "--really" in unasked.stderr) == (2, True)
    assert int(counted["after"]["deletedCount"]) >= 2
    # The housekeeper may have swept away already what nobody can read any more.
    assert any(reason in erased.stderr for reason in ("TENANT_KEY_DESTROYED", "RESOURCE_NOT_FOUND"))
    assert [place for place, content in _everywhere(running_stack) if canary in content] == []


def _refused(ended: "subprocess.CompletedProcess[str]") -> "subprocess.CompletedProcess[str] | None":
    return ended if ended.returncode else None


def _kept(stack: RunningStack, company: Company) -> set[str]:
    """Return the attempts of which something is kept."""
    rows = stack.query("SELECT attempt_id FROM kept_content WHERE tenant_id = $1", company.tenant)
    return {str(row["attempt_id"]) for row in rows}


def _everywhere(stack: RunningStack) -> Iterator[tuple[str, str]]:
    """Yield the places where content could leak to, with all that is there."""
    readable = "has_table_privilege(format('%I.%I', schemaname, tablename), 'SELECT')"
    tables = f"SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND {readable}"  # noqa: S608
    for row in stack.query(tables):
        yield str(row["tablename"]), str(stack.query(f'TABLE "{row["tablename"]}"'))
    for log in (stack.state_dir / "logs").glob("*.log"):
        if log.name != "simulator.log":
            yield log.name, log.read_text()
    with urllib.request.urlopen(stack.metrics) as answer:  # noqa: S310 - our own
        yield "metrics", answer.read().decode()


def test_the_keeping_of_content_costs_callers_no_answer(
    tollhouse: CommandLine, company: Company, running_stack: RunningStack
) -> None:
    """Many calls at once are all answered, and all kept."""
    tollhouse.ok("content", "set-policy", "--tenant", company.tenant, "--keep", "prompts", "--must-keep")

    def is_in_force() -> bool:
        """Tell whether it is in all workers: each call has a connection of its own, so that both have their turn."""
        sent = {_call(running_stack, company, "hello", stream=False) for _ in range(12)}
        time.sleep(0.2)
        return sent <= _kept(running_stack, company)

    _soon(is_in_force)
    with ThreadPoolExecutor(8) as callers:
        attempts = set(callers.map(lambda _: _call(running_stack, company, "hello", stream=False), range(40)))

    assert _soon(lambda: attempts <= _kept(running_stack, company))
