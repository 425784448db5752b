"""Data policies from the command line to the simulator: hidden there, put back here, blocked for nothing."""

import asyncio
import time

from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.command_line import CommandLine, Company
from tests.drivers.stack import RunningStack

CARD, EMAIL = "5555 5555 5555 4444", "canary.person@example.com"
SECRETS = (CARD, EMAIL, "staff-771234")


async def bodies(url: str) -> str:
    """Return all that the simulator was sent since it was told to listen."""
    async with SimulatorClient(url) as client:
        return str([one.get("body") for one in await client.requests()])


async def listen(url: str) -> None:
    """Have the simulator keep what it is sent."""
    async with SimulatorClient(url) as client:
        await client.capture_requests(200)


def test_a_policy_is_set_tried_enforced_and_looked_up(
    tollhouse: CommandLine, company: Company, running_stack: RunningStack
) -> None:
    """An administrator finds all commands; callers notice nothing but the refusal; no value is found anywhere."""
    here = ("--tenant", company.tenant)
    rules = ("--rule", "email,custom:staff=mask", "--rule", "payment@prompt=block")
    asyncio.run(listen(running_stack.simulator))
    detectors = tollhouse.json("data-policies", "detectors")
    preview = tollhouse.json("data-policies", "set", *here, *rules, "--pattern", "staff=staff-[0-9]{6}", "--dry-run")
    tollhouse.ok("data-policies", "set", *here, *rules, "--pattern", "staff=staff-[0-9]{6}")
    tried = tollhouse.ok("data-policies", "test", *here, "-o", "json", stdin=f"{EMAIL} staff-771234")

    refused = _until_refused(tollhouse, company)
    answer = tollhouse.json("generate", f"[[echo]] Ask {EMAIL} about staff-771234.", key=company.key)
    streamed = tollhouse.ok("generate", f"[[echo]] Ask {EMAIL} about staff-771234.", "--stream", key=company.key)
    found = _findings(tollhouse, here)

    told = "".join(part.get("text", "") for part in answer["candidates"][0]["content"]["parts"])
    sent = asyncio.run(bodies(running_stack.simulator))
    assert {"EMAIL", "PAYMENT_CARD", "CN_RESIDENT_ID"} <= {one["name"] for one in detectors}
    assert preview["after"]["patterns"][0]["pattern"] == "staff-[0-9]{6}"
    assert '"maskedText": "[EMAIL_1] [STAFF_1]"' in tried
    assert "DATA_POLICY_BLOCKED" in refused
    assert "contents[0].parts[0].text" in refused
    assert CARD not in refused
    assert f"Ask {EMAIL} about staff-771234." in told
    assert f"Ask {EMAIL} about staff-771234." in streamed
    assert "Ask [EMAIL_1] about [STAFF_1]." in sent
    assert EMAIL not in sent
    assert {(one["detector"], one["action"]) for one in found} >= {
        ("EMAIL", "DATA_ACTION_MASK"),
        ("custom:staff", "DATA_ACTION_MASK"),
        ("PAYMENT_CARD", "DATA_ACTION_BLOCK"),
    }
    kept = running_stack.server_log() + str(running_stack.query("SELECT * FROM data_finding, data_policy"))
    assert not any(secret in kept for secret in SECRETS)


def _until_refused(tollhouse: CommandLine, company: Company) -> str:
    """Call until the policy is in force, which takes two seconds at the most; what was sent before is another's."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        ended = tollhouse("generate", f"pay with {CARD}", key=company.key)
        if ended.returncode:
            return ended.stderr
    raise AssertionError("the policy was never in force")


def _findings(tollhouse: CommandLine, here: tuple[str, ...]) -> list[dict[str, str]]:
    """Wait for the findings of both calls: they are written every second."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found: list[dict[str, str]] = tollhouse.json("data-policies", "findings", *here)
        if sum(one["detector"] == "EMAIL" for one in found) >= 2:
            return found
    raise AssertionError("the findings were never written")
