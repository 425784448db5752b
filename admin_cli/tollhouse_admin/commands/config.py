"""`tollhouse config`: which server to talk to, with which key."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from tollhouse_admin.command import Options, local_command, noun
from tollhouse_admin.completion import complete_profiles
from tollhouse_admin.endpoints import Surroundings, checked_address, find_endpoint
from tollhouse_admin.failures import wrong_usage
from tollhouse_admin.output import Format, note, write_csv, write_fields, write_json, write_table
from tollhouse_admin.profiles import (
    Configuration,
    Profile,
    checked_key,
    checked_profile_name,
    configuration_path,
    load,
    masked,
    save,
)
from tollhouse_admin.rendering import Cell
from tollhouse_admin.secret_source import KeyFile, read_key

app = noun("Configuration: which server to talk to, with which key.")

Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete_profiles, help="Name of the profile.")]
TITLES = ["name", "current", "endpoint", "api_key", "tenant", "tls"]


def _load() -> Configuration:
    return load(configuration_path(os.environ))


def _save(configuration: Configuration) -> None:
    save(configuration, configuration_path(os.environ))


@local_command(app, "set")
def set_profile(
    _options: Options,
    name: Name,
    *,
    endpoint: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where the server is.")] = None,
    key_file: KeyFile = None,
    ask_key: Annotated[bool, typer.Option("--ask-key", help="Ask for the key, also when there is one.")] = False,
    tenant: Annotated[str | None, typer.Option(metavar="ID", help="Tenant when none is named; '' for none.")] = None,
    tls: Annotated[bool | None, typer.Option("--tls/--plaintext", help="Absent: TLS except on this machine.")] = None,
    ca_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Authorities to trust, PEM.")] = None,
    client_certificate_file: Annotated[Path | None, typer.Option(metavar="FILE", help="For mutual TLS, PEM.")] = None,
    client_key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="For mutual TLS, PEM.")] = None,
    server_name: Annotated[str | None, typer.Option(metavar="NAME", help="Name in the server's certificate.")] = None,
) -> None:
    """Make a profile or change what is given; the key comes from a file, a pipe or a prompt."""
    configuration = _load()
    known = configuration.profiles.get(checked_profile_name(name))
    if known is None and endpoint is None:
        raise wrong_usage(f"Profile {name!r} is new and has no endpoint", "Add --endpoint HOST:PORT.")
    profile = replace(
        known or Profile(endpoint=""),
        **_given(endpoint=checked_address(endpoint) if endpoint else None, tls=tls, server_name=server_name),
        **_given(ca_file=_path(ca_file), client_certificate_file=_path(client_certificate_file)),
        **_given(client_key_file=_path(client_key_file), tenant=tenant),
    )
    has_credential = profile.api_key is not None or profile.client_certificate_file is not None
    if key_file is not None or ask_key or not has_credential:
        profile = replace(profile, api_key=checked_key(read_key(key_file, prompt="API key")))
    updated = configuration.with_profile(name, profile)
    _save(updated)
    note(f"profile {name} is saved{' and in use' if updated.current == name else ''}")


def _given(**values: str | bool | None) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _path(file: Path | None) -> str | None:
    return str(file.expanduser().absolute()) if file else None


@local_command(app, "list")
def list_profiles(options: Options) -> None:
    """List the profiles; of the keys only the part that names them."""
    configuration = _load()
    rows = [_row(configuration, name) for name in sorted(configuration.profiles)]
    if options.output is Format.JSON:
        write_json([dict(zip(TITLES, row, strict=True)) for row in rows])
    elif options.output is Format.CSV:
        write_csv(TITLES, rows)
    else:
        write_table(TITLES, rows)


def _row(configuration: Configuration, name: str) -> list[Cell]:
    profile = configuration.profiles[name]
    tls = "" if profile.tls is None else ("yes" if profile.tls else "no")
    current = name == configuration.current
    return [name, current, profile.endpoint, masked(profile.api_key), profile.tenant or "", tls]


@local_command(app, "show")
def show(
    options: Options,
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", autocompletion=complete_profiles, help="Absent: what is in use.")
    ] = None,
) -> None:
    """Show the server and credential that commands use, environment and local run included; never the key."""
    surroundings = Surroundings(environment=os.environ, directory=Path.cwd())
    endpoint = find_endpoint(surroundings, profile=name, as_caller=False)
    fields: dict[str, Cell] = {
        "endpoint": endpoint.target,
        "from": endpoint.origin,
        "api_key": masked(endpoint.api_key),
        "tls": endpoint.tls is not None,
        "ca_file": (endpoint.tls and endpoint.tls.ca_file) or "",
        "tenant": endpoint.tenant or "",
        "configuration": str(configuration_path(os.environ)),
    }
    if options.output is Format.JSON:
        write_json(fields)
    elif options.output is Format.CSV:
        write_csv(list(fields), [list(fields.values())])
    else:
        write_fields(fields)


@local_command(app, "use")
def use(_options: Options, name: Name) -> None:
    """Use a profile from now on."""
    configuration = _load()
    configuration.profile(name)
    _save(replace(configuration, current=name))
    note(f"profile {name} is in use")


@local_command(app, "delete")
def delete(_options: Options, name: Name) -> None:
    """Forget a profile and its key."""
    configuration = _load()
    configuration.profile(name)
    _save(configuration.without_profile(name))
    note(f"profile {name} is deleted")
