"""Routes, tiers and routing policies with the command line, against the real server."""

import json
import time

from tests.drivers.command_line import CommandLine, Company


def test_a_policy_is_set_explained_enforced_and_deleted(tollhouse: CommandLine, company: Company) -> None:
    """What an administrator writes binds the next calls, and the refusal says whose word it was."""
    here = ("--tenant", company.tenant)
    policy = ("routes", "policy")

    preview = tollhouse.json(*policy, "set", *here, "--allow-tier", "flash-lite", "--dry-run")
    tollhouse.ok(*policy, "set", *here, "--allow-tier", "flash-lite", "--no-fallback", "--weight", "research=3")
    shown = tollhouse.json(*policy, "get", "--scope", company.department)
    refused = _until_refused(tollhouse, company)
    explained = tollhouse("routes", "explain", "--tier", "flash-lite", "--prompt", "Hello", key=company.key)
    nobody = tollhouse(*policy, "set", *here, "--allow-tier", "gold")
    unasked = tollhouse(*policy, "delete", *here)
    tollhouse.ok(*policy, "delete", *here, "--yes")

    assert preview["after"]["allowedTiers"] == {"names": ["flash-lite"]}
    assert shown["effective"]["allowedTiers"] == {"names": ["flash-lite"]}
    assert {one["field"] for one in shown["effectiveOrigins"]} == {
        *("allowed_tiers", "allow_fallback", "department_weights"),
    }
    assert "error: MODEL_NOT_ALLOWED" in refused
    assert f"tenants/{company.tenant} does not allow tier flash" in refused
    assert "fallback is off" in explained.stdout
    assert "verdict: upstream" in explained.stderr
    assert f"policy allowed_tiers: tenants/{company.tenant}" in explained.stderr
    assert "at most 0.0" in explained.stderr
    assert (nobody.returncode, unasked.returncode) == (5, 2)
    assert "gold is not in the catalogue" in nobody.stderr


def _until_refused(tollhouse: CommandLine, company: Company) -> str:
    """Call until the policy is in force, which takes two seconds at the most."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        ended = tollhouse("generate", "Hello", "--tier", "flash", key=company.key)
        if ended.returncode:
            return ended.stderr
    raise AssertionError("the policy was never in force")


def test_a_policy_travels_as_a_file(tollhouse: CommandLine, company: Company) -> None:
    """What get writes, set takes for another scope; a field that is cleared is gone."""
    here = ("--tenant", company.tenant)
    policy = ("routes", "policy")
    target = "flash=gemini-3.7-flash,rank=0,weight=2"
    tollhouse.ok(*policy, "set", *here, "--auto", "--allow-region", "global", "--override", target)
    written = tollhouse.ok(*policy, "get", *here, "-o", "json")

    tollhouse.ok(*policy, "set", "--scope", company.department, "--from-file", "-", stdin=written)
    tollhouse.ok(*policy, "set", "--scope", company.department, "--clear", "auto", "--clear", "allowed_regions")
    after = tollhouse.json(*policy, "get", "--scope", company.department)

    assert json.loads(written)["auto"]["enabled"] is True
    assert after["tierOverrides"][0]["targets"][0]["weight"] == 2
    assert "auto" not in after
    assert after["effective"]["auto"]["enabled"] is True


def test_an_operator_sees_and_changes_what_stands_behind_a_tier(tollhouse: CommandLine, company: Company) -> None:
    """A caller cannot, and a slip of the pen changes nothing."""
    before = tollhouse.json("routes", "tier", "embedding")

    preview = tollhouse.json(
        "routes",
        "set-tier",
        "embedding",
        "gemini-embedding-001,rank=0",
        "gemini-embedding-2,rank=0,weight=3",
        "--dry-run",
    )
    wrong = tollhouse("routes", "set-tier", "embedding", "gemini-embedding-2,weigth=3")
    denied = tollhouse("routes", "set-tier", "embedding", "gemini-embedding-2", key=company.key)

    assert before["edited"] is False
    assert [one["weight"] for one in preview["after"]["targets"]] == [1, 3]
    assert wrong.returncode == 2
    assert "is not a target" in wrong.stderr
    assert denied.stderr.startswith("error: PERMISSION_DENIED")
    assert tollhouse.json("routes", "tier", "embedding") == before
