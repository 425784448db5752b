"""What a run says while it runs."""

import sys
from collections import Counter

from tests.faults.journal import Journal

_MEASURES = ("kills", "hang_ups", "supervisor_kills", "calls", "resets", "ids", "tampers", "acts")


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def table(journal: Journal) -> str:
    """Return the summary of all runs: cases by campaign, how many have findings, what they came to."""
    lines = ["", f"{'campaign':<12} {'cases':>6} {'passed':>7} {'failed':>7} {'not struck':>11} {'hours':>6}  came to"]
    for campaign in sorted({result["campaign"] for result in journal.results.values()}):
        results = journal.of(campaign)
        failed = sum(bool(result["findings"]) for result in results)
        idle = sum(not result.get("struck", True) for result in results)
        hours = sum(result.get("seconds", 0.0) for result in results) / 3600
        sums = Counter[str]()
        for result in results:
            sums.update({name: result[name] for name in _MEASURES if name in result})
        came_to = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sums.items())
        passed = sum(journal.has_passed(result["case"]) for result in results)
        lines.append(f"{campaign:<12} {len(results):>6} {passed:>7} {failed:>7} {idle:>11} {hours:>6.2f}  {came_to}")
    lines += [f"  FAILED {result['case']}" for result in journal.results.values() if result["findings"]]
    return "\n".join([*lines, f"results: {journal.path}", ""])
