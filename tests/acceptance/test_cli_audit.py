"""The trail of a company from the running server: searched, taken out, verified, and who may not have it."""

import json
import time
from pathlib import Path

from tests.drivers.command_line import CommandLine, Company

_PATIENCE_SECONDS = 20.0


def test_a_companys_trail_is_searched_exported_and_verified(
    tollhouse: CommandLine, company: Company, tmp_path: Path
) -> None:
    """What was done, what was refused, and the export, each with where it came from."""
    tenant = company.tenant.rpartition("/")[2]
    assert tollhouse("audit", "search", "--tenant", tenant, key=company.key).returncode == 3
    denied = _denied(tollhouse, tenant)
    tollhouse.ok("audit", "export", "--tenant", tenant, "--file", "trail.jsonl")
    tollhouse.ok("audit", "export", "--tenant", tenant, "--file", "trail.jsonl")

    stored = tollhouse.json("audit", "verify-stored", "--tenant", tenant)
    lines = [json.loads(line) for line in (tmp_path / "trail.jsonl").read_text().splitlines()]

    assert (denied["kind"], denied["method"].rpartition(".")[2]) == ("KIND_PERMISSION_DENIED", "SearchAuditEvents")
    assert (denied["sourceAddress"], denied["personal"]) == ("127.0.0.1", "PERSONAL_OPEN")
    assert stored["findings"] == []
    assert [line["metadata"]["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    assert {"CreateTenant", "SearchAuditEvents", "ExportAuditEvents"} <= {line["activity_name"] for line in lines}
    assert all(line["src_endpoint"]["ip"] == "127.0.0.1" for line in lines)


def _denied(tollhouse: CommandLine, tenant: str) -> dict[str, str]:
    """Return the newest denial, which is written a moment after it was given."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        found = tollhouse.json("audit", "search", "--tenant", tenant, "--kind", "permission-denied", "--limit", "1")
        if found or time.monotonic() > deadline:
            newest: dict[str, str] = found[0]
            return newest
