"""`tollhouse doctor`: what is wrong, and what to do about it."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from tollhouse_admin.command import READ, Options, local_command, single
from tollhouse_admin.connection import connect
from tollhouse_admin.doctor_checks import address, certificate, credential, diagnosis
from tollhouse_admin.doctor_terms import Finding, Outcome, failure, fine, skipped, summary, write_findings
from tollhouse_admin.endpoints import Endpoint, Surroundings, find_endpoint
from tollhouse_admin.failures import ExitCode, Failure
from tollhouse_admin.output import Format, note, write_csv, write_json

app = single("What is wrong, and what to do about it.")


_TIMEOUT_SECONDS = 8.0
"""The server takes three for its checks, and as long again for those that need others; who waits for more, waits for
PostgreSQL."""


@local_command(app, None, READ, timeout_seconds=_TIMEOUT_SECONDS)
def doctor(
    options: Options,
    *,
    probe: Annotated[
        bool, typer.Option("--probe", help="Send each upstream account a real call, one that costs nothing.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as failures.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="PREFIX", help="Checks of the server whose names begin so, such as vault."),
    ] = None,
) -> None:
    """Check the way to the server, and have the server check itself and what it needs. Changes nothing.

    What the server checks takes a role on the platform. Exit code 1 when a check failed, with --strict also for a
    warning.
    """
    findings = list(_findings(options, probes=probe, prefixes=only or []))
    _write(options.output, findings)
    bad = {Outcome.FAILURE, Outcome.WARNING} if strict else {Outcome.FAILURE}
    if any(one.outcome in bad for one in findings):
        raise typer.Exit(ExitCode.GENERAL)


def _findings(options: Options, *, probes: bool, prefixes: list[str]) -> Iterator[Finding]:
    surroundings = Surroundings(environment=os.environ, directory=Path.cwd())
    try:
        endpoint = find_endpoint(surroundings, profile=options.profile, as_caller=False)
    except Failure as error:
        yield failure("cli.configuration", error.message, error.advice)
        return
    yield fine("cli.configuration", f"{endpoint.origin} names the server")
    reached = address(endpoint)
    yield reached
    if reached.outcome is Outcome.FAILURE:
        yield skipped("server", "it does not answer")
        return
    yield from _of_server(endpoint, options, probes=probes, prefixes=prefixes)


def _of_server(endpoint: Endpoint, options: Options, *, probes: bool, prefixes: list[str]) -> Iterator[Finding]:
    with connect(endpoint, timeout_seconds=options.timeout) as connection, ThreadPoolExecutor(3) as at_once:
        shown = at_once.submit(certificate, endpoint)
        known = at_once.submit(lambda: list(credential(connection)))
        checked = at_once.submit(lambda: list(diagnosis(connection, probes=probes, prefixes=prefixes)))
        yield shown.result()
        known_names = set()
        for one in (*known.result(), *checked.result()):
            # Both may have been told that PostgreSQL is away.
            if one.name not in known_names:
                known_names.add(one.name)
                yield one


def _write(form: Format, findings: list[Finding]) -> None:
    if form is Format.JSON:
        write_json({"checks": [one.as_json() for one in findings], "summary": summary(findings)})
    elif form is Format.CSV:
        rows = [[one.name, one.outcome.value, one.seen, one.advice] for one in findings]
        write_csv(["name", "outcome", "seen", "advice"], rows)
    else:
        write_findings(findings)
        sys.stdout.flush()
        note(summary(findings))
