"""Makes typer commands from functions that take a Session, adding the options that every command of a kind has."""

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer
from typer.core import TyperGroup

from tollhouse_admin.completion import complete_profiles
from tollhouse_admin.connection import Connection, connect
from tollhouse_admin.endpoints import Surroundings, find_endpoint
from tollhouse_admin.failures import ExitCode, Failure, report
from tollhouse_admin.output import Format, note

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

GENERATION_TIMEOUT_SECONDS = 300.0
LONGEST_WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options that commands share; those that a command does not have keep their defaults."""

    output: Format = Format.TABLE
    verbose: bool = False
    profile: str | None = None
    timeout: float = LONGEST_WAIT_SECONDS
    limit: int | None = None
    dry_run: bool = False
    request_id: str | None = None
    yes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a command works with: its shared options and a connection."""

    options: Options
    connection: Connection


_PANEL = "Shared options"

Output = Annotated[Format, typer.Option("--output", "-o", help="How to write the result.", rich_help_panel=_PANEL)]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show all details of an error.", rich_help_panel=_PANEL)]
ProfileName = Annotated[
    str | None,
    typer.Option(
        "--profile", help="Profile to use.", autocompletion=complete_profiles, metavar="NAME", rich_help_panel=_PANEL
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.001, metavar="SECONDS", help="Longest wait.", rich_help_panel=_PANEL)
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, metavar="N", help="Most entries to list; all by default.", rich_help_panel=_PANEL),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Let the server check the change and show it, without it.", rich_help_panel=_PANEL),
]
RequestId = Annotated[
    str | None,
    typer.Option("--request-id", metavar="UUID", help="Repeat an earlier request safely.", rich_help_panel=_PANEL),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.", rich_help_panel=_PANEL)]

_ANNOTATIONS = {
    "limit": Limit,
    "dry_run": DryRun,
    "request_id": RequestId,
    "yes": Yes,
    "output": Output,
    "timeout": Timeout,
    "profile": ProfileName,
    "verbose": Verbose,
}

LOCAL = ("output", "verbose")
READ = ("output", "timeout", "profile", "verbose")
LIST = ("limit", *READ)
CHANGE = ("dry_run", "request_id", *READ)
DESTROY = ("yes", *CHANGE)
GENERATE = ("request_id", *READ)

Command = Callable[Concatenate[Session, Parameters], None]


def command(
    app: typer.Typer,
    name: str | None,
    shared: tuple[str, ...],
    *,
    as_caller: bool = False,
    timeout_seconds: float = 30.0,
) -> Callable[[Command[Parameters]], Command[Parameters]]:
    """Add the decorated function to `app` as a command that is given a Session; `name` None makes it the only one.

    `as_caller` uses the demo key of a local run instead of the administrator's.
    """

    def register(function: Command[Parameters]) -> Command[Parameters]:
        def run(**values: Any) -> None:
            options, arguments = _separate(values, shared)
            with _reported(options), _session(options, as_caller=as_caller) as session:
                function(session, **arguments)  # type: ignore[call-arg]  # typer has checked them by the signature

        _add(app, name, run, function, _defaults(shared, timeout_seconds), leading=1)
        return function

    return register


def local_command(
    app: typer.Typer,
    name: str | None,
    shared: tuple[str, ...] = LOCAL,
    *,
    timeout_seconds: float = LONGEST_WAIT_SECONDS,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the decorated function, which takes Options first, to `app` as a command that needs no server.

    `name` None makes it the only one.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        def run(**values: Any) -> None:
            options, arguments = _separate(values, shared)
            with _reported(options):
                function(options, **arguments)

        _add(app, name, run, function, _defaults(shared, timeout_seconds), leading=1)
        return function

    return register


def _separate(values: dict[str, Any], shared: tuple[str, ...]) -> tuple[Options, dict[str, Any]]:
    options = Options(**{key: values[key] for key in shared})
    return options, {key: value for key, value in values.items() if key not in shared}


def _defaults(shared: tuple[str, ...], timeout_seconds: float) -> dict[str, Any]:
    options = Options(timeout=timeout_seconds)
    return {key: getattr(options, key) for key in shared}


def _add(
    app: typer.Typer,
    name: str | None,
    run: Callable[..., None],
    function: Callable[..., Any],
    defaults: dict[str, Any],
    *,
    leading: int,
) -> None:
    """Give `run` the parameters of `function` without the leading ones, and the shared ones, then register it."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())[leading:]
    added = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_ANNOTATIONS[key])
        for key, default in defaults.items()
    ]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + added
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app.command(name)(run)


@contextmanager
def _reported(options: Options) -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except Failure as failure:
        report(failure, verbose=options.verbose)
        raise typer.Exit(failure.exit_code) from failure
    except BrokenPipeError as stopped:
        # Who reads has read enough; what Python flushes at its end must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitCode.OK) from stopped


@contextmanager
def _session(options: Options, *, as_caller: bool) -> Iterator[Session]:
    surroundings = Surroundings(environment=os.environ, directory=Path.cwd())
    endpoint = find_endpoint(surroundings, profile=options.profile, as_caller=as_caller)
    if endpoint.notice:
        note(endpoint.notice)
    with connect(endpoint, timeout_seconds=options.timeout) as connection:
        yield Session(options=options, connection=connection)


class Group(TyperGroup):
    """A group of commands that shows its help when none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Ask for help on behalf of who gave nothing."""
        return super().parse_args(ctx, args or ([] if ctx.resilient_parsing else ["--help"]))


def noun(purpose: str, *, group: type[TyperGroup] = Group) -> typer.Typer:
    """Return an empty app for the commands of one noun."""
    app = typer.Typer(cls=group, help=purpose, add_completion=False, rich_markup_mode="rich")
    # A callback keeps a group a group when it has one command only.
    app.callback()(_nothing)
    return app


def single(purpose: str) -> typer.Typer:
    """Return an app for a noun that is one command itself."""
    return typer.Typer(help=purpose, add_completion=False, rich_markup_mode="rich")


def _nothing() -> None:
    return None
