"""Everything that a deployment can set. Frozen, and the only reader of the environment.

Every setting is an environment variable `TOLLHOUSE_<NAME>`; unknown `TOLLHOUSE_` variables are refused, because a
misspelt limit that is silently ignored is worse than a server that does not start.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tollhouse_server.errors import FieldViolation, InvalidRequest

Port = Annotated[int, Field(ge=0, le=65535)]

_PREFIX = "TOLLHOUSE_"
# Read by the CLI, not by the server; they may well stand in the same shell.
_OTHERS = frozenset(_PREFIX + name for name in ("ENDPOINT", "API_KEY", "PROFILE", "CA_FILE", "TENANT"))


class Settings(BaseSettings):
    """A deployment's settings, with defaults that suit a laptop."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid")

    state_dir: Path = Path(".tollhouse")
    """Where the embedded parts keep their data."""

    bind_address: str = "127.0.0.1"
    grpc_port: Port = 50051
    metrics_port: Port = 9464
    simulator_port: Port = 8090
    postgres_port: Port = 54320
    vault_port: Port = 8200

    workers: Annotated[int, Field(ge=1, le=256)] = 2
    """Worker processes that share the gRPC port."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    postgres_dsn: SecretStr | None = None
    """The application role's DSN; absent means the embedded server."""

    postgres_owner_dsn: SecretStr | None = None
    """The schema owner's DSN, used for migrations only."""

    vault_address: str | None = None
    """Vault's or OpenBao's URL; absent means the embedded server."""

    vault_namespace: str | None = None
    vault_ca_file: Path | None = None
    """Certificates that vouch for Vault's own; absent means the system's authorities."""

    vault_role_id_file: Path | None = None
    vault_secret_id_file: Path | None = None
    vault_custodian_role_id_file: Path | None = None
    vault_custodian_secret_id_file: Path | None = None
    """AppRole credentials of the gateway (reads keys) and of the key custodian (writes them, never reads others)."""

    gemini_api_key: SecretStr | None = Field(default=None, validation_alias="GEMINI_API_KEY")
    """A real Gemini key for the embedded start; without one the simulator answers. Not prefixed: Google's own name."""

    gemini_base_url: str = "https://generativelanguage.googleapis.com"
    """Where accounts of kind `gemini_api` are reached; the embedded stack points it at the simulator."""

    max_message_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    max_metadata_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024
    max_concurrent_streams: Annotated[int, Field(ge=1)] = 1000
    reflection: bool = False

    default_deadline_seconds: Annotated[float, Field(gt=0)] = 120.0
    """Deadline of a call whose caller set none."""

    upstream_timeout_seconds: Annotated[float, Field(gt=0)] = 300.0
    """How long an upstream call may take at the most."""

    settle_grace_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How long an upstream call may go on past its caller's deadline or hang-up, so that its usage is known."""

    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Upstream attempts per call, the first included."""

    default_output_cap_tokens: Annotated[int, Field(ge=1)] = 8192
    """The ceiling's output bound for a caller who set no `max_output_tokens`; it is sent upstream, so it binds."""

    stream_step_tokens: Annotated[int, Field(ge=0)] = 0
    """Output tokens that a stream holds at a time; 0 holds its whole ceiling at once (docs/decisions/0012)."""

    worker_dead_after_seconds: Annotated[float, Field(ge=1, le=60)] = 20.0
    """Silence after which a worker counts as dead and what it left in flight goes to suspense."""

    suspense_policy: Literal["ceiling", "expected", "void"] = "ceiling"
    """At what an attempt of unknown outcome is booked until it is resolved: its worst case, what such calls mostly
    cost, or nothing. Only `ceiling` keeps hard budgets hard through any number of crashes."""

    usage_retention_months: Annotated[int, Field(ge=0, le=1200)] = 0
    """Whole months for which usage records stay behind their month; 0 keeps them for ever.

    Only records of a month whose export was confirmed are dropped, and never in the month after theirs. Roll-ups stay.
    """

    drain_seconds: Annotated[float, Field(gt=0)] = 30.0
    """How long a stopping worker waits for its calls to end."""

    def environment(self) -> dict[str, str]:
        """Return the variables that give a child process these settings. They hold secrets: never in arguments."""
        values = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name in type(self).model_fields
            if name != "gemini_api_key" and (value := getattr(self, name)) is not None
        }
        return {_PREFIX + name.upper(): value for name, value in values.items()}


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        InvalidRequest: a value is wrong or a variable unknown; each is named.
    """
    unknown = unknown_variables(os.environ)
    if unknown:
        raise InvalidRequest(violations=unknown)
    try:
        return Settings()
    except ValidationError as error:
        violations = tuple(
            FieldViolation(
                path=_PREFIX + "_".join(str(part) for part in problem["loc"]).upper(), description=problem["msg"]
            )
            for problem in error.errors(include_input=False)
        )
        raise InvalidRequest(violations=violations) from None


def unknown_variables(names: Iterable[str]) -> tuple[FieldViolation, ...]:
    """Name each `TOLLHOUSE_` variable that neither the server nor the command line reads."""
    known = {_PREFIX + name.upper() for name in Settings.model_fields} | _OTHERS
    return tuple(
        FieldViolation(path=name, description="is not a setting of Tollhouse")
        for name in sorted(names)
        if name.startswith(_PREFIX) and name not in known
    )
