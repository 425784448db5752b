"""The profiles of `~/.config/tollhouse/config.toml`: which server, with which key. The file is 0600."""

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from tollhouse_admin.failures import ExitCode, Failure, wrong_usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A server and the credential for it; absent values are decided when a connection is made."""

    endpoint: str
    api_key: str | None = field(default=None, repr=False)
    tenant: str | None = None
    tls: bool | None = None
    ca_file: str | None = None
    client_certificate_file: str | None = None
    client_key_file: str | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All profiles by name, and the one that is used when none is named."""

    current: str | None = None
    profiles: Mapping[str, Profile] = field(default_factory=dict)

    def with_profile(self, name: str, profile: Profile) -> Self:
        """Return a copy with the profile added or replaced; the first one becomes the current one."""
        return replace(self, current=self.current or name, profiles={**self.profiles, name: profile})

    def without_profile(self, name: str) -> Self:
        """Return a copy without the profile; none is current when it was."""
        remaining = {key: profile for key, profile in self.profiles.items() if key != name}
        return replace(self, current=None if self.current == name else self.current, profiles=remaining)

    def profile(self, name: str) -> Profile:
        """Return the profile called `name`.

        Raises:
            Failure: there is none.
        """
        if name not in self.profiles:
            known = ", ".join(sorted(self.profiles)) or "none"
            raise wrong_usage(
                f"There is no profile {name!r}; there are: {known}", f"Make it: tollhouse config set {name}"
            )
        return self.profiles[name]


def configuration_path(environment: Mapping[str, str]) -> Path:
    """Return where the profiles are kept, `$XDG_CONFIG_HOME` respected."""
    base = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME") or Path.home()) / ".config")
    return Path(base) / "tollhouse" / "config.toml"


def load(path: Path) -> Configuration:
    """Return the configuration in `path`; an empty one when there is no such file.

    Raises:
        Failure: others may read the file, or it is not what `save` writes.
    """
    try:
        content = path.read_bytes()
        mode = path.stat().st_mode
    except FileNotFoundError:
        return Configuration()
    except OSError as error:
        raise _broken(path, error.strerror or "it cannot be read") from error
    if mode & 0o077:
        raise Failure(
            reason="CONFIG_UNSAFE",
            message=f"{path} holds keys and other users may read it",
            advice=f"Close it: chmod 600 {path}",
            exit_code=ExitCode.USAGE,
        )
    try:
        return _configuration(tomllib.loads(content.decode()))
    except (ValueError, TypeError, KeyError) as error:
        raise _broken(path, str(error)) from error


def _broken(path: Path, why: str) -> Failure:
    message = f"{path} cannot be used: {why}"
    return Failure(reason="CONFIG_INVALID", message=message, advice="Repair or remove it", exit_code=ExitCode.USAGE)


def _configuration(document: Mapping[str, Any]) -> Configuration:
    profiles = {name: Profile(**values) for name, values in document.get("profiles", {}).items()}
    return Configuration(current=document.get("current"), profiles=profiles)


def save(configuration: Configuration, path: Path) -> None:
    """Write the configuration so that a reader sees the old file or the new one, and nobody else sees either."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp makes the file 0600 from its first moment.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".config-")
    with os.fdopen(descriptor, "w") as file:
        file.write(_document(configuration))
    Path(temporary).replace(path)


def _document(configuration: Configuration) -> str:
    lines = ["# Written by `tollhouse config`. Holds API keys: keep it to yourself."]
    if configuration.current:
        lines.append(f"current = {_quoted(configuration.current)}")
    for name, profile in sorted(configuration.profiles.items()):
        lines += ["", f"[profiles.{_quoted(name)}]", *_assignments(profile)]
    return "\n".join(lines) + "\n"


def _assignments(profile: Profile) -> list[str]:
    values = ((setting.name, getattr(profile, setting.name)) for setting in fields(profile))
    return [f"{key} = {_quoted(value)}" for key, value in values if value is not None]


def _quoted(value: str | bool) -> str:  # noqa: FBT001 - a value to write, not a switch
    # JSON's strings and booleans are TOML's too, except that TOML wants DEL escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def checked_profile_name(name: str) -> str:
    """Return `name` if a profile may be called so, else raise Failure."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", name):
        raise wrong_usage(f"{name!r} cannot be the name of a profile", "Use letters, digits, hyphens and underscores.")
    return name


def checked_key(text: str) -> str:
    """Return an API key without white space around it, else raise Failure; the text is never repeated."""
    key = text.strip()
    if not re.fullmatch(r"[!-~]{8,12288}", key):
        raise wrong_usage("What was given as the API key is not one", "A key is one word such as th_live_...")
    return key


def masked(key: str | None) -> str:
    """Return what may be shown of a key: the part that names it, never its secret; of a token nothing."""
    if not key:
        return ""
    return "_".join([*key.split("_")[:3], "…"]) if key.startswith("th_") and key.count("_") >= 3 else "…"
