"""Writes docs/cli.md from the command tree: `python -m tollhouse_admin.reference docs/cli.md [--check]`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tollhouse_admin.__main__ import COMMANDS, load
from tollhouse_admin.failures import EXIT_CODE_MEANINGS, ExitCode

INTRODUCTION = """# The command line

<!-- Written by `python -m tollhouse_admin.reference docs/cli.md`; change the commands, not this file. -->

`tollhouse` administers Tollhouse and calls models through it. It speaks gRPC and nothing else.

**Which server.** `tollhouse config set NAME --endpoint HOST:PORT --key-file FILE` stores a profile in
`~/.config/tollhouse/config.toml` (0600; `$XDG_CONFIG_HOME` is respected), `tollhouse config use NAME` makes it the
current one, `--profile` or `TOLLHOUSE_PROFILE` picks another. `TOLLHOUSE_ENDPOINT`, `TOLLHOUSE_API_KEY`,
`TOLLHOUSE_TENANT`, `TOLLHOUSE_CA_FILE`, `TOLLHOUSE_CLIENT_CERTIFICATE_FILE` and `TOLLHOUSE_CLIENT_KEY_FILE` stand above
the profile. Where no profile is in use and `make run` serves
from the current directory, its server and keys are used, and stderr says so. Other machines are called with TLS unless
the profile says `--plaintext`. A key is never given on the command line.

**What comes out.** Results go to stdout as a table, as proto JSON (`-o json`) or as CSV (`-o csv`), everything else to
stderr. Money is exact to the nano-dollar. Lists follow all pages; `--limit` ends them earlier.

**Changes.** `--dry-run` has the server check a change and shows what would differ. Destructive ones ask first; `--yes`
answers. Each carries a request id, which is printed when the outcome is not known: repeated with `--request-id` the
change is made once at most.

**Errors** are one line: the reason, what happened, what to do. `--verbose` adds all details as JSON.
"""


def document() -> str:
    """Return the whole reference as Markdown."""
    codes = "\n".join(f"| {code.value} | {EXIT_CODE_MEANINGS[code]} |" for code in ExitCode)
    sections = [INTRODUCTION, f"| exit code | meaning |\n|---|---|\n{codes}\n"]
    for name in COMMANDS:
        sections += _sections(f"tollhouse {name}", load(name))
    return "\n".join(sections)


def _sections(path: str, command: Any) -> Iterator[str]:
    commands = getattr(command, "commands", None)
    if commands is None:
        yield _command_section(path, command)
        return
    yield f"{_heading(path)} {path}\n\n{command.help}\n"
    for name, each in commands.items():
        yield from _sections(f"{path} {name}", each)


def _heading(path: str) -> str:
    """Return the mark of a heading: the deeper in the tree, the smaller."""
    return "#" * (path.count(" ") + 1)


def _command_section(path: str, command: Any) -> str:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    usage = " ".join([path, *(_argument(argument) for argument in arguments), "[OPTIONS]" if options else ""])
    rows = [f"| `{_names(each)}` | {_explanation(each)} |" for each in [*arguments, *options]]
    table = "\n".join(["| | |", "|---|---|", *rows])
    return f"{_heading(path)} {path}\n\n{command.help}\n\n```\n{usage.strip()}\n```\n\n{table}\n"


def _argument(argument: Any) -> str:
    return argument.metavar if argument.required else f"[{argument.metavar}]"


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar)
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    return names if parameter.is_flag or not parameter.metavar else f"{names} {parameter.metavar}"


def _explanation(parameter: Any) -> str:
    choices = ", ".join(str(getattr(choice, "value", choice)) for choice in parameter.type_descriptor.choices or ())
    text = (parameter.help or "").replace("|", "\\|")
    parts = [text, f"One of {choices}." if choices else "", "Required." if parameter.required else ""]
    return " ".join(part for part in (*parts, _default(parameter)) if part)


def _default(parameter: Any) -> str:
    """Return what holds where nothing is given, unless that is nothing."""
    default = parameter.default
    return (
        f"Absent: {getattr(default, 'value', default)}." if default and isinstance(default, int | float | str) else ""
    )


def main(arguments: list[str]) -> int:
    """Write the reference, or with --check return 1 when the file is not what would be written."""
    paths = [argument for argument in arguments if argument != "--check"]
    path = Path(paths[0] if paths else "docs/cli.md")
    text = document()
    if "--check" not in arguments:
        path.write_text(text)
        return 0
    current = path.is_file() and path.read_text() == text
    sys.stdout.write(f"{path} is current\n" if current else f"{path} is stale: python -m tollhouse_admin.reference\n")
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
