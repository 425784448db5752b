"""Decides which server to talk to and with which key, from options, environment, profiles and the local `make run`."""

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tollhouse_admin.failures import ExitCode, Failure
from tollhouse_admin.profiles import Configuration, Profile, checked_key, configuration_path, load

LOCAL_RUN = Path(".tollhouse/run.json")
_LOCAL_KEYS = {True: "its demo key", False: "its admin key"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How the connection is protected; absent files mean the system's authorities and no client certificate."""

    ca_file: str | None = None
    client_certificate_file: str | None = None
    client_key_file: str | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server (`host:port`), the credential for it, how to protect the way there, and where all this came from.

    `api_key` is an API key or a token, or empty where the client's certificate says who calls.
    """

    target: str
    api_key: str = field(repr=False)
    tls: Tls | None
    tenant: str | None
    origin: str
    notice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the decision depends on besides the options."""

    environment: Mapping[str, str]
    directory: Path


def find_endpoint(surroundings: Surroundings, *, profile: str | None, as_caller: bool) -> Endpoint:
    """Return the server to use; `as_caller` picks the demo key of a local run instead of the administrator's.

    A profile named by option or TOLLHOUSE_PROFILE comes first, then the current one, then the local run; values in
    TOLLHOUSE_ENDPOINT, TOLLHOUSE_API_KEY, TOLLHOUSE_TENANT, TOLLHOUSE_CA_FILE, TOLLHOUSE_CLIENT_CERTIFICATE_FILE and
    TOLLHOUSE_CLIENT_KEY_FILE stand above them all.

    Raises:
        Failure: nothing says where the server is or with which key, or the way there would expose the key.
    """
    environment = surroundings.environment
    configuration = load(configuration_path(environment))
    named = profile or environment.get("TOLLHOUSE_PROFILE") or configuration.current
    if named:
        chosen, origin, notice = configuration.profile(named), f"profile {named}", ""
    elif environment.get("TOLLHOUSE_ENDPOINT"):
        chosen, origin, notice = Profile(endpoint=""), "TOLLHOUSE_ENDPOINT", ""
    else:
        chosen = _local_run(surroundings.directory / LOCAL_RUN, configuration, as_caller=as_caller)
        role = "the key of TOLLHOUSE_API_KEY" if environment.get("TOLLHOUSE_API_KEY") else _LOCAL_KEYS[as_caller]
        origin, notice = str(LOCAL_RUN), f"using the local server of {LOCAL_RUN} with {role}"
    return _endpoint(chosen, environment, origin=origin, notice=notice)


def _local_run(path: Path, configuration: Configuration, *, as_caller: bool) -> Profile:
    try:
        run = json.loads(path.read_text())
        endpoint, key = run["grpc"], run["demo_api_key" if as_caller else "admin_api_key"]
    except FileNotFoundError as error:
        raise _nowhere(configuration) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path} cannot be used: {type(error).__name__} {error}"
        raise _misconfigured("RUN_FILE_INVALID", message, "Start the server anew: make run") from error
    # The file lies wherever the user happens to stand; it must not be able to draw a key to another machine.
    if not is_loopback(_target(str(endpoint))):
        raise _misconfigured("RUN_FILE_INVALID", f"{path} names a server that is not on this machine", "Remove it.")
    return Profile(endpoint=str(endpoint), api_key=str(key))


def _nowhere(configuration: Configuration) -> Failure:
    if configuration.profiles:
        return _misconfigured("NO_PROFILE", "No profile is in use", "Choose one: tollhouse config use NAME")
    return _misconfigured(
        "NO_ENDPOINT",
        "No server is configured",
        "Run 'tollhouse config set NAME --endpoint HOST:PORT', set TOLLHOUSE_ENDPOINT, or start one here: make run",
    )


def _misconfigured(reason: str, message: str, advice: str, **details: Any) -> Failure:
    return Failure(reason=reason, message=message, advice=advice, exit_code=ExitCode.USAGE, details=details)


def _endpoint(profile: Profile, environment: Mapping[str, str], *, origin: str, notice: str) -> Endpoint:
    address = environment.get("TOLLHOUSE_ENDPOINT") or profile.endpoint
    key = environment.get("TOLLHOUSE_API_KEY") or profile.api_key
    tls = _tls(address, _certified(profile, environment), environment.get("TOLLHOUSE_CA_FILE"))
    if not key and (tls is None or tls.client_certificate_file is None):
        advice = "Set TOLLHOUSE_API_KEY, or store a key: tollhouse config set NAME --key-file FILE"
        raise _misconfigured("NO_API_KEY", f"There is no API key for {origin}", advice)
    return Endpoint(
        target=_target(address),
        api_key=checked_key(key) if key else "",
        tls=tls,
        tenant=environment.get("TOLLHOUSE_TENANT") or profile.tenant,
        origin=origin,
        notice=notice,
    )


def _certified(profile: Profile, environment: Mapping[str, str]) -> Profile:
    """Return the profile with the client's certificate of the environment, if that names one: both files or none."""
    certificate = environment.get("TOLLHOUSE_CLIENT_CERTIFICATE_FILE")
    key = environment.get("TOLLHOUSE_CLIENT_KEY_FILE")
    if bool(certificate) != bool(key):
        names = "TOLLHOUSE_CLIENT_CERTIFICATE_FILE and TOLLHOUSE_CLIENT_KEY_FILE"
        raise _misconfigured("CLIENT_CERTIFICATE", f"{names} go together", "Set both, or none.")
    return replace(profile, client_certificate_file=certificate, client_key_file=key) if certificate else profile


def _target(address: str) -> str:
    target = re.sub(r"^(https?|grpcs?)://", "", address.strip()).rstrip("/")
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}", target):
        raise _misconfigured("ENDPOINT_INVALID", f"{address!r} is not an endpoint", "Write HOST:PORT.")
    return target


def checked_address(address: str) -> str:
    """Return the address of a server, `host:port` with or without a scheme, else raise Failure."""
    _target(address)
    return address.strip()


def is_loopback(target: str) -> bool:
    """Tell whether `host:port` is on this machine, by its text alone."""
    host = target.rsplit(":", 1)[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(address: str, profile: Profile, ca_file: str | None) -> Tls | None:
    """Protect the connection unless it stays on this machine or the user said otherwise."""
    wanted = profile.tls
    if re.match(r"(https|grpcs)://", address):
        wanted = True
    elif re.match(r"(http|grpc)://", address):
        wanted = False
    authorities = ca_file or profile.ca_file
    if wanted is None:
        wanted = bool(authorities) or not is_loopback(_target(address))
    if not wanted:
        return None
    return Tls(
        ca_file=authorities,
        client_certificate_file=profile.client_certificate_file,
        client_key_file=profile.client_key_file,
        server_name=profile.server_name,
    )
