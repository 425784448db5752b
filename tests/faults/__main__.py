"""`make faults`: the campaigns in turn, each resumed where earlier runs stopped; a table at the end."""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tollhouse_server.database.engine import Database
from tollhouse_server.embedded.postgres_roles import APP

from tests.drivers.deployment import Parts
from tests.drivers.referee import Finding
from tests.drivers.stack import RunningStack
from tests.drivers.verification import findings_in
from tests.faults import attacks, boundary_campaign, duplicates, random_kills, store_trouble
from tests.faults.journal import FILE, Journal
from tests.faults.report import say, table
from tests.faults.rig import Rig, open_rig, rig_parts

_TESTS = "tests"
CAMPAIGNS = (
    boundary_campaign.CAMPAIGN,
    random_kills.CAMPAIGN,
    store_trouble.CAMPAIGN,
    duplicates.CAMPAIGN,
    attacks.CAMPAIGN,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for. Exit status 1 when something is wrong that was found now or earlier and not mended."""
    options = _parser().parse_args(arguments)
    journal = Journal.open(options.journal, fresh=options.fresh)
    chosen = options.campaigns or [*CAMPAIGNS, _TESTS]
    if set(chosen) - {_TESTS}:
        with rig_parts() as (parts, stack):
            try:
                asyncio.run(_run_all(options, journal, chosen, parts, stack))
            finally:
                options.journal.with_suffix(".log").write_text(stack.output.read_text())
    has_failed = _TESTS in chosen and _run_tests() != 0
    sys.stdout.write(table(journal))
    return 1 if has_failed or any(result["findings"] for result in journal.results.values()) else 0


async def _run_all(
    options: argparse.Namespace, journal: Journal, chosen: Sequence[str], parts: Parts, stack: RunningStack
) -> None:
    async with open_rig(parts, stack) as rig:
        for campaign in CAMPAIGNS:
            if campaign in chosen:
                started_at = time.monotonic()
                say(f"{campaign}:")
                await _run(campaign, rig, journal, options)
                await _verify(campaign, parts, journal)
                say(f"  {time.monotonic() - started_at:.0f} s")


async def _verify(campaign: str, parts: Parts, journal: Journal) -> None:
    """See that `tollhouse ledger verify` has nothing to say about what a campaign has left."""
    database = Database(parts.endpoints[0].dsn(APP))
    try:
        found = await findings_in(database)
    finally:
        await database.close()
    findings = [
        Finding(
            "the ledger does not add up",
            f"{one.table} {one.key}",
            f"{one.check} {one.field}: {one.found} for {one.expected}",
        )
        for one in found
    ]
    journal.add(campaign, "ledger verify", findings)
    say(f"  ledger verify: {len(findings)} findings")


async def _run(campaign: str, rig: Rig, journal: Journal, options: argparse.Namespace) -> None:
    seed = options.seed
    match campaign:
        case boundary_campaign.CAMPAIGN:
            await boundary_campaign.run(rig, journal, seed=seed, only=options.only, again=options.again)
        case random_kills.CAMPAIGN:
            await random_kills.run(
                rig, journal, seed=seed, kills=options.kills, supervisor_kills=options.supervisor_kills
            )
        case store_trouble.CAMPAIGN:
            await store_trouble.run(rig, journal, seed=seed, only=options.only)
        case duplicates.CAMPAIGN:
            await duplicates.run(rig, journal, seed=seed, ids=options.ids)
        case _:
            await attacks.run(rig, journal, seed=seed, resets=options.resets)


def _run_tests() -> int:
    """Run the tests of this folder: the big budget, the planted mistakes."""
    folder = str(Path(__file__).parent)
    return subprocess.run([sys.executable, "-m", "pytest", folder], check=False).returncode


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make faults ARGS=...", description=__doc__)
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=f"of {', '.join((*CAMPAIGNS, _TESTS))}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], metavar="WORDS", help="cases whose names have all of these")
    parser.add_argument("--again", action="store_true", help="run cases that have passed before, too")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs have found")
    parser.add_argument("--kills", type=int, default=50, help="random kills in this run; the goal over runs is 1000")
    parser.add_argument("--supervisor-kills", type=int, default=1)
    parser.add_argument("--ids", type=int, default=100, help="request ids to repeat; full size 1000")
    parser.add_argument("--resets", type=int, default=1000, help="streams to reset; full size 10000")
    parser.add_argument("--journal", type=Path, default=FILE, help="where results are kept")
    return parser


if __name__ == "__main__":
    sys.exit(main())
