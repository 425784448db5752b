"""`tollhouse-server`: parse arguments, load settings, run what was asked for."""

import argparse
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

import uvloop

from tollhouse_server.errors import TollhouseError
from tollhouse_server.garbage_collection import without_garbage_collection
from tollhouse_server.parent import end_with_parent
from tollhouse_server.settings import Settings, load_settings
from tollhouse_server.telemetry.logging import configure_logging

_USAGE_ERROR, _FAILED = 2, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Exit status: 0 done, 1 it cannot run (one line says why), 2 wrong usage or settings."""
    options = _parser().parse_args(arguments)
    if options.command == "fork-server":
        return _fork_on_demand(options)
    try:
        settings = load_settings()
    except TollhouseError as error:
        return _fail(error, _USAGE_ERROR)
    configure_logging(level=settings.log_level, levels=settings.log_levels, log_format=settings.log_format)
    if options.parent_pid:
        end_with_parent(options.parent_pid)
    try:
        with without_garbage_collection():
            command = _command(options, settings)
        uvloop.run(command)
    except TollhouseError as error:
        return _fail(error, _FAILED)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _fork_on_demand(options: argparse.Namespace) -> int:
    """Load everything, and be the fork server; or one of the processes that it has forked, until its end."""
    end_with_parent(options.parent_pid)
    with without_garbage_collection():
        # And what not every process needs: of what is loaded here those that are forked have one copy.
        import protovalidate  # noqa: F401, PLC0415

        from tollhouse_server import fork_server, processes  # noqa: F401, PLC0415
        from tollhouse_server.operations.checks import registry  # noqa: F401, PLC0415
    arguments = fork_server.fork_on_demand(options.control_fd)
    return 0 if arguments is None else main(arguments)


def _command(options: argparse.Namespace, settings: Settings) -> Coroutine[Any, Any, None]:
    """Return what is to be run. Each command loads what it needs alone: a supervisor starts twice as fast so."""
    match options.command:
        case "run":
            # Only this command needs the extra `embedded`.
            from tollhouse_server.embedded.run import run_embedded  # noqa: PLC0415

            return run_embedded(settings)
        case "worker" if settings.transport == "envoy":
            from tollhouse_server.api.transports.envoy_process import become_envoy  # noqa: PLC0415

            name, app = "tollhouse-server worker", "tollhouse_server.envoy_worker:app"
            return become_envoy(settings, name=name, app=app, ready_fd=options.ready_fd)
        case "worker" | "housekeeper" as role:
            from tollhouse_server import processes  # noqa: PLC0415

            return (processes.work if role == "worker" else processes.keep_house)(settings, options.ready_fd)
        case command:
            from tollhouse_server import serving  # noqa: PLC0415

            return {
                "serve": serving.serve,
                "migrate": serving.migrate_and_seed,
                "create-administrator-key": serving.print_administrator_key,
                "doctor": serving.diagnose,
            }[command](settings)


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
    commands.add_parser(
        "doctor", help="check PostgreSQL, Vault, clocks, certificates and what else a server here needs"
    )
    for role in ("worker", "housekeeper"):
        child = commands.add_parser(role, help=f"one {role} process; forked by the others")
        child.add_argument("--ready-fd", type=int, required=True, help="descriptor to write to once it works")
        child.add_argument("--parent-pid", type=int, required=True, help="the process to end with")
    forks = commands.add_parser("fork-server", help="the process that the others are forked from")
    forks.add_argument("--control-fd", type=int, required=True, help="socket by which it is told what to fork")
    forks.add_argument("--parent-pid", type=int, required=True, help="the process to end with")
    return parser


def _fail(error: TollhouseError, status: int) -> int:
    sys.stderr.write(f"tollhouse-server: {error.message()}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
