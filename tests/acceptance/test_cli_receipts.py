"""Receipts from the running server, checked by the command line with no server to ask."""

import json
from dataclasses import replace
from pathlib import Path

from tests.drivers.command_line import CommandLine, Company


def without_server(tollhouse: CommandLine) -> CommandLine:
    """The command line of somebody who has files, and neither an address nor a key."""
    environment = {name: text for name, text in tollhouse.environment.items() if not name.startswith("TOLLHOUSE_")}
    return replace(tollhouse, environment=environment)


def test_a_companys_receipts_are_checked_from_files_alone(
    tollhouse: CommandLine, company: Company, tmp_path: Path
) -> None:
    """What the callers were told they paid is what the receipts come to; one changed digit is found."""
    answers = [tollhouse.json("generate", f"Hello {n}", key=company.key)["outcome"] for n in range(3)]
    spent = sum(answer["cost"]["nanos"] for answer in answers)
    tollhouse.ok("receipts", "export", "--month", "this", "--file", "receipts.jsonl", key=company.key)
    (tmp_path / "keys.json").write_text(tollhouse.ok("receipts", "keys", "-o", "json", key=company.key))
    verify = ("receipts", "verify", "--keys", "keys.json")

    told = json.loads(without_server(tollhouse).ok(*verify, "receipts.jsonl", "-o", "json"))
    text = (tmp_path / "receipts.jsonl").read_text()
    forged = text.replace(f'\\"cost_nanos\\":{answers[0]["cost"]["nanos"]}', '\\"cost_nanos\\":1')
    (tmp_path / "forged.jsonl").write_text(forged)
    refused = without_server(tollhouse)(*verify, "forged.jsonl")

    findings = {finding["attemptId"]: int(finding["costNanos"]) for finding in told["findings"]}
    assert sum(findings.values()) == spent
    assert set(findings) == {answer["receipt"]["attemptId"] for answer in answers}
    assert forged != text
    assert refused.returncode == 1
    assert "forged" in refused.stdout


def test_the_receipts_of_another_company_are_neither_given_nor_taken(
    tollhouse: CommandLine, company: Company, tmp_path: Path
) -> None:
    """A caller may not have them, and under its keys they do not count."""
    tollhouse.ok("generate", "Hello", key=company.key)
    tollhouse.ok("receipts", "export", "--month", "this", "--file", "receipts.jsonl", key=company.key)
    (attempt,) = (line.split()[2] for line in tollhouse.ok("usage", "records", key=company.key).splitlines()[1:][:1])
    (tmp_path / "platform.json").write_text(tollhouse.ok("receipts", "keys", "-o", "json"))
    foreign_keys = json.loads((tmp_path / "platform.json").read_text()) | {"tenant": "tenants/demo"}
    (tmp_path / "foreign.json").write_text(json.dumps(foreign_keys))

    asked = tollhouse("receipts", "get", attempt, "--tenant", "demo", key=company.key)
    everybodys = tollhouse("receipts", "verify", "--keys", "platform.json", "receipts.jsonl")
    foreign = tollhouse("receipts", "verify", "--keys", "foreign.json", "receipts.jsonl")

    assert asked.returncode == 3
    assert everybodys.returncode == 0
    assert foreign.returncode == 1
    assert "unknown key" in foreign.stdout
