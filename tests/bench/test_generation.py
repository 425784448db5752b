"""What a governed call costs between its RPC and its ledger: plan, place, attempt, the upstream's client, prices."""

import subprocess
import sys


def test_cost_of_a_call_between_rpc_and_ledger() -> None:
    """The steps "route, breaker, bucket, price the ceiling" and "upstream HTTP, JSON" have 165 us in 8-performance."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.generation_load"], capture_output=True, text=True, timeout=300, check=True
    )

    sys.stdout.write("\n" + done.stdout)
    assert "a call" in done.stdout
