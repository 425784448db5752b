"""Writes dashboards and runbook for Grafana: `python grafana/render.py [--check]`; with --check nothing is changed."""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: E402

from grafana import board, runbook  # noqa: E402
from grafana.boards import capacity, costs, keys, ledger, overview, security, upstream  # noqa: E402

BOARDS = tuple(one.BOARD for one in (overview, costs, upstream, ledger, keys, security, capacity))
RENDERED = Path(__file__).resolve().parent / "rendered"


def rendered() -> dict[Path, str]:
    """Return each dashboard's JSON, and the runbook's page, by the file it belongs in."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    boards = {RENDERED / f"{one.uid}.json": encoder.encode(board.build(one).build()) + "\n" for one in BOARDS}
    return {**boards, RENDERED / "runbook.html": runbook.page()}


def stale() -> list[str]:
    """Name the files that differ from what the code makes, and those that no code makes."""
    wanted = rendered()
    orphaned = set(RENDERED.iterdir()) - wanted.keys()
    differing = {path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text}
    return sorted(str(path.relative_to(ROOT)) for path in orphaned | differing)


def main() -> int:
    """Write, or check and return the exit status."""
    parser = argparse.ArgumentParser(description="Write dashboards and runbook for Grafana.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 when a file is stale")
    if parser.parse_args().check:
        found = stale()
        sys.stdout.write(
            "".join(f"{name} is stale: run `make render`\n" for name in found) or "dashboards and runbook are current\n"
        )
        return 1 if found else 0
    RENDERED.mkdir(exist_ok=True)
    for path, text in rendered().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
