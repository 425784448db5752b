"""`tollhouse-server`: parse arguments, load settings, run what was asked for."""

import argparse
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

import uvloop

from tollhouse_server import serving
from tollhouse_server.errors import TollhouseError
from tollhouse_server.parent import end_with_parent
from tollhouse_server.settings import Settings, load_settings
from tollhouse_server.telemetry.logging import configure_logging

_USAGE_ERROR, _FAILED = 2, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Exit status: 0 done, 1 it cannot run (one line says why), 2 wrong usage or settings."""
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings()
    except TollhouseError as error:
        return _fail(error, _USAGE_ERROR)
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    if options.parent_pid:
        end_with_parent(options.parent_pid)
    try:
        uvloop.run(_command(options, settings))
    except TollhouseError as error:
        return _fail(error, _FAILED)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _command(options: argparse.Namespace, settings: Settings) -> Coroutine[Any, Any, None]:
    match options.command:
        case "run":
            # Only this command needs the extra `embedded`.
            from tollhouse_server.embedded.run import run_embedded  # noqa: PLC0415

            return run_embedded(settings)
        case "serve":
            return serving.serve(settings)
        case "migrate":
            return serving.migrate_and_seed(settings)
        case "create-administrator-key":
            return serving.print_administrator_key(settings)
        case "worker":
            return serving.work(settings, options.ready_fd)
        case _:
            return serving.keep_house(settings, options.ready_fd)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tollhouse-server",
        description="The Tollhouse server. Settings are TOLLHOUSE_* environment variables.",
    )
    parser.set_defaults(parent_pid=0)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="start everything a laptop needs, and serve: PostgreSQL, OpenBao, simulator, demo")
    commands.add_parser("serve", help="serve, with PostgreSQL and Vault from the settings")
    commands.add_parser("migrate", help="bring database schema, catalogue and price book up to date")
    commands.add_parser("create-administrator-key", help="print a new API key of the platform's administrator")
    for role in ("worker", "housekeeper"):
        child = commands.add_parser(role, help=f"one {role} process; started by the other commands")
        child.add_argument("--ready-fd", type=int, required=True, help="descriptor to write to once it works")
        child.add_argument("--parent-pid", type=int, required=True, help="the process to end with")
    return parser


def _fail(error: TollhouseError, status: int) -> int:
    sys.stderr.write(f"tollhouse-server: {error.message()}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
