"""`make faults`: the campaigns in turn, each resumed where earlier runs stopped; a table at the end."""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tollhouse_server.database.engine import Database
from tollhouse_server.embedded.postgres_roles import APP

from tests.drivers.deployment import Parts, running_parts
from tests.drivers.fleet import Fleet, fleet_administration, running_fleet
from tests.drivers.referee import Finding
from tests.drivers.stack import RunningStack
from tests.drivers.verification import findings_in
from tests.faults import (
    attacks,
    audit_store,
    audit_tampers,
    boundary_campaign,
    cancels,
    duplicates,
    overload,
    random_kills,
    revocation,
    rotation_campaign,
    store_trouble,
    upstream_matrix,
    vault_campaign,
)
from tests.faults.boundaries import CUSTODY_PLACES
from tests.faults.journal import FILE, Journal
from tests.faults.key_rig import key_parts, open_key_rig
from tests.faults.overload_cases import CASES as OVERLOADS
from tests.faults.overload_rig import open_overload_rig, overload_parts
from tests.faults.report import say, table
from tests.faults.rig import Rig, open_rig, parts_directory, rig_parts, running_forks
from tests.faults.upstream_rig import open_upstream_rig, upstream_parts

_TESTS = "tests"
CAMPAIGNS = (
    boundary_campaign.CAMPAIGN,
    random_kills.CAMPAIGN,
    store_trouble.CAMPAIGN,
    duplicates.CAMPAIGN,
    attacks.CAMPAIGN,
)
_OWN_DEPLOYMENTS = (
    upstream_matrix.CAMPAIGN,
    overload.CAMPAIGN,
    rotation_campaign.CAMPAIGN,
    revocation.CAMPAIGN,
    vault_campaign.CAMPAIGN,
    cancels.CAMPAIGN,
    audit_tampers.CAMPAIGN,
    audit_store.CAMPAIGN,
)
_ALL = (*CAMPAIGNS, *_OWN_DEPLOYMENTS, _TESTS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for. Exit status 1 when something is wrong that was found now or earlier and not mended."""
    options = _parser().parse_args(arguments)
    journal = Journal.open(options.journal, fresh=options.fresh)
    chosen = options.campaigns or _ALL
    if set(chosen) & set(CAMPAIGNS):
        with rig_parts() as (parts, stack):
            try:
                asyncio.run(_run_all(options, journal, chosen, parts, stack))
            finally:
                options.journal.with_suffix(".log").write_text(stack.output.read_text())
    if upstream_matrix.CAMPAIGN in chosen:
        _run_upstream(options, journal)
    if overload.CAMPAIGN in chosen:
        _run_overload(options, journal)
    if rotation_campaign.CAMPAIGN in chosen:
        _run_rotations(options, journal)
    if revocation.CAMPAIGN in chosen:
        _run_revocation(options, journal)
    if vault_campaign.CAMPAIGN in chosen:
        _run_vault(options, journal)
    if cancels.CAMPAIGN in chosen:
        _run_cancels(options, journal)
    _run_audit(options, journal, chosen)
    has_failed = _TESTS in chosen and _run_tests() != 0
    sys.stdout.write(table(journal))
    return 1 if has_failed or any(result["findings"] for result in journal.results.values()) else 0


def _run_upstream(options: argparse.Namespace, journal: Journal) -> None:
    """Run the upstream matrix, which has a deployment of its own."""
    size = upstream_matrix.Size(rate=options.rate, seconds=options.seconds)
    say(f"{upstream_matrix.CAMPAIGN}: {size.rate:g} calls a second, each trouble for {size.seconds:g} s")

    async def run(*started: Any) -> None:
        async with open_upstream_rig(*started) as rig:
            await upstream_matrix.run(
                rig, journal, seed=options.seed, size=size, only=options.only, again=options.again
            )

    with upstream_parts() as started:
        try:
            asyncio.run(run(*started))
        finally:
            options.journal.with_suffix(".upstream.log").write_text(started[1].output.read_text())


def _run_overload(options: argparse.Namespace, journal: Journal) -> None:
    """Run the cases of overload, on one deployment for all that want the same settings."""
    size = overload.Size(seconds=options.seconds)
    cases = overload.chosen(journal, OVERLOADS, only=options.only, again=options.again)
    say(f"{overload.CAMPAIGN}: {len(cases)} cases, each of their phases for {size.seconds:g} s")

    async def run(alike: Sequence[overload.Case], *started: Any) -> None:
        async with open_overload_rig(*started) as rig:
            await overload.run(rig, journal, alike, seed=options.seed, size=size)

    for settings in {one.settings for one in cases}:
        with overload_parts(**dict(settings)) as started:
            try:
                asyncio.run(run([one for one in cases if one.settings == settings], *started))
            finally:
                options.journal.with_suffix(".overload.log").write_text(started[1].output.read_text())


def _run_rotations(options: argparse.Namespace, journal: Journal) -> None:
    """Run the rotations of keys, which have a deployment of their own and housekeepers besides."""
    say(f"{rotation_campaign.CAMPAIGN}: {options.rotations} more")

    async def run(parts: Parts, gateway: RunningStack, forks: RunningStack) -> None:
        async with open_key_rig(parts, gateway) as rig:
            await rotation_campaign.run(
                (rig, forks), journal, seed=options.seed, rotations=options.rotations, accounts=options.accounts
            )

    with key_parts() as (parts, gateway), running_forks(parts, *CUSTODY_PLACES) as forks:
        forks.run = gateway.run
        try:
            asyncio.run(run(parts, gateway, forks))
        finally:
            log = gateway.output.read_text() + forks.output.read_text()
            options.journal.with_suffix(".rotations.log").write_text(log)


def _run_revocation(options: argparse.Namespace, journal: Journal) -> None:
    """Revoke rights on three servers of their own, one of which stands still now and then."""
    say(f"{revocation.CAMPAIGN}: {options.revocations} more")

    async def run(fleet: Fleet) -> None:
        async with revocation.open_rig(fleet, seed=options.seed) as rig:
            await revocation.run(rig, journal, seed=options.seed, revocations=options.revocations)

    with (
        parts_directory() as directory,
        running_parts(directory) as parts,
        running_fleet(parts, servers=revocation.SERVERS, workers=1, drain_seconds=1) as fleet,
    ):
        with fleet_administration(fleet) as administration:
            administration.add_department("revoked")
        try:
            asyncio.run(run(fleet))
        finally:
            log = "".join(server.output.read_text() for server in fleet.servers)
            options.journal.with_suffix(".revocation.log").write_text(log)


def _run_vault(options: argparse.Namespace, journal: Journal) -> None:
    """Run the troubles of Vault, which have a deployment of their own."""
    say(f"{vault_campaign.CAMPAIGN}: each trouble for {options.seconds:g} s")

    async def run(parts: Parts, gateway: RunningStack) -> None:
        async with open_key_rig(parts, gateway) as rig:
            await vault_campaign.run(
                rig, journal, seed=options.seed, seconds=options.seconds, only=options.only, again=options.again
            )

    with key_parts() as (parts, gateway):
        try:
            asyncio.run(run(parts, gateway))
        finally:
            options.journal.with_suffix(".vault.log").write_text(gateway.output.read_text())


def _run_cancels(options: argparse.Namespace, journal: Journal) -> None:
    """Run the cancelled calls of several tenants, on a server as a user starts it."""
    say(f"{cancels.CAMPAIGN}: {options.cancels} calls")
    with cancels.cancel_parts() as stack:
        try:
            asyncio.run(cancels.run(stack, journal, seed=options.seed, calls=options.cancels))
        finally:
            options.journal.with_suffix(".cancels.log").write_text(stack.server_log())


def _run_audit(options: argparse.Namespace, journal: Journal, chosen: Sequence[str]) -> None:
    """Tamper with trails; and hurt PostgreSQL, on a disk of its own, during administrative acts."""
    if audit_tampers.CAMPAIGN in chosen:
        say(f"{audit_tampers.CAMPAIGN}: {options.tampers} tampers with exports, and as many with what is stored")
        audit_tampers.run(journal, tampers=options.tampers, seed=options.seed)
    if audit_store.CAMPAIGN in chosen:
        say(f"{audit_store.CAMPAIGN}: each trouble during {options.acts} acts")
        audit_store.run(journal, acts=options.acts, only=options.only, again=options.again)


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
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=f"of {', '.join(_ALL)}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], metavar="WORDS", help="cases whose names have all of these")
    parser.add_argument("--again", action="store_true", help="run cases that have passed before, too")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs have found")
    parser.add_argument("--kills", type=int, default=50, help="random kills in this run; the goal over runs is 1000")
    parser.add_argument("--supervisor-kills", type=int, default=1)
    parser.add_argument("--revocations", type=int, default=100, help="of keys, grants, memberships; full size 1000")
    parser.add_argument("--ids", type=int, default=100, help="request ids to repeat; full size 1000")
    parser.add_argument("--resets", type=int, default=1000, help="streams to reset; full size 10000")
    parser.add_argument("--cancels", type=int, default=1000, help="calls of several tenants to cancel; full size 10000")
    parser.add_argument("--rate", type=float, default=100.0, help="upstream: calls a second")
    parser.add_argument("--seconds", type=float, default=60.0, help="upstream, vault: for how long each trouble lasts")
    parser.add_argument("--rotations", type=int, default=100, help="of keys, in this run; the goal over runs is 1000")
    parser.add_argument("--accounts", type=int, default=rotation_campaign.ACCOUNTS, help="that rotate at a time")
    parser.add_argument("--tampers", type=int, default=1000, help="audit: with exports, and with what is stored")
    parser.add_argument("--acts", type=int, default=500, help="audit-store: during each trouble; full size 3500")
    parser.add_argument("--journal", type=Path, default=FILE, help="where results are kept")
    return parser


if __name__ == "__main__":
    sys.exit(main())
