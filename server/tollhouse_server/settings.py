"""Everything that a deployment can set. Frozen, and the only reader of the environment.

Every setting is an environment variable `TOLLHOUSE_<NAME>`; unknown `TOLLHOUSE_` variables are refused, because a
misspelt limit that is silently ignored is worse than a server that does not start.
"""

import os
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tollhouse_server.delivery_settings import DeliverySettings
from tollhouse_server.errors import FieldViolation, InvalidRequest
from tollhouse_server.setting_values import (
    Port,
    check_token_url,
    checked_entries,
    collector_url,
    decoded,
    egress_proxy,
    is_kept_private,
    text_of,
    upstream_address,
)

LogLevel = Literal["debug", "info", "warning", "error"]

VERTEX_ADDRESS = "https://{region}-aiplatform.googleapis.com"
"""Vertex AI at Google; the regions `global`, `us` and `eu` have hosts of their own."""

_PREFIX = "TOLLHOUSE_"
# Read by the CLI, not by the server; they may well stand in the same shell.
_OTHERS = frozenset(
    _PREFIX + name
    for name in ("ENDPOINT", "API_KEY", "PROFILE", "CA_FILE", "CLIENT_CERTIFICATE_FILE", "CLIENT_KEY_FILE", "TENANT")
)


class Settings(DeliverySettings, BaseSettings):
    """A deployment's settings, with defaults that suit a laptop."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid")

    state_dir: Path = Path(".tollhouse")
    """Where the embedded parts keep their data."""

    transport: Literal["auto", "envoy", "grpcio"] = "auto"
    """What serves gRPC in the workers: Envoy with the worker in it (the extra `envoy`), or gRPC for Python. `auto` is
    Envoy where all is installed that it needs; `tollhouse-server doctor` says which it is, and why."""

    bind_address: str = "127.0.0.1"
    grpc_port: Port = 50051
    metrics_port: Port = 9464
    simulator_port: Port = 8090
    postgres_port: Port = 54320
    vault_port: Port = 8200

    workers: Annotated[int, Field(ge=1, le=256)] = 2
    """Worker processes that share the gRPC port."""

    log_level: LogLevel = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    log_levels: Annotated[dict[str, LogLevel], NoDecode] = {}
    """Levels of single loggers and of what is below them, a JSON object of names and levels:
    {"tollhouse_server.calls": "warning"} keeps the lines of calls that went well out of the log."""

    traces: Literal["off", "otlp"] = "off"
    traces_endpoint: str = "http://127.0.0.1:4318"
    """Where traces are sent, over OTLP/HTTP; without a path `/v1/traces` is added."""

    traces_headers_file: Path | None = None
    """A file with what the collector wants to see, such as `authorization: ...`; one header a line."""

    traces_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The share of calls that are traced, of those that come without a trace; of others their caller decides."""

    traces_service_name: str = "tollhouse"
    traces_environment: str = ""
    """What spans say of the process: `service.name` and `deployment.environment.name`."""

    traces_upstream: bool = False
    """Whether a call's trace is handed on to upstreams in `traceparent`; Google ignores it, servers of one's own may
    use it."""

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
    """AppRole credentials of the gateway (reads keys) and of the key custodian (writes them, never reads others). The
    secret_id's file may hold a wrapping token instead, which is used once, when the server starts."""

    vault_secret_id: SecretStr | None = None
    vault_custodian_secret_id: SecretStr | None = None
    """What the wrapping tokens held. Set by the server for the processes that it starts, not by people."""

    gemini_api_key: SecretStr | None = Field(default=None, validation_alias="GEMINI_API_KEY")
    """A real Gemini key for the embedded start; without one the simulator answers. Not prefixed: Google's own name."""

    gemini_base_url: str = "https://generativelanguage.googleapis.com"
    """Where accounts of kind `gemini_api` are reached; the embedded stack points it at the simulator."""

    upstream_addresses: Annotated[dict[str, str], NoDecode] = {}
    """Further addresses that accounts may name as their endpoint: a JSON object of names and URLs, such as
    {"gemini_api-relay": "https://gemini.example.com", "openai_compatible": "http://gemma.internal:8000"}.

    A name is a kind of upstream (gemini_api, vertex, openai_compatible), or one with a hyphen and more behind it.
    "{region}" in a URL stands for the account's region. https only, but on this machine itself and for servers of kind
    openai_compatible, which mostly stand in a company's own network: there prompts and keys travel in clear, so name an
    https URL wherever the network is not trusted. `gemini_api` is `gemini_base_url`; `vertex` is Google's unless given.
    """

    egress_proxies: Annotated[dict[str, SecretStr], NoDecode] = {}
    """Proxies that accounts may name as their egress: a JSON object of names and URLs http(s)://[user:password@]host:port."""

    upstream_token_urls: Annotated[tuple[str, ...], NoDecode] = ("https://oauth2.googleapis.com/token",)
    """The only OAuth endpoints that a service account's key may name: a JSON list of https URLs."""

    api_keys_url: str = "https://apikeys.googleapis.com"
    """Google's API Keys API, at which keys of accounts with the provider `google` are rotated."""

    simulator_url: str | None = None
    """Where the simulator is reached, so that its keys can be rotated too; the embedded start sets it."""

    tls_certificate_file: Path | None = None
    tls_private_key_file: Path | None = None
    """PEM files of the server's certificate, with those between it and its authority, and of its key. With them the
    gRPC port takes TLS only; new content is put in force within seconds, without a restart."""

    tls_client_ca_file: Path | None = None
    tls_client_auth: Literal["none", "required"] = "none"
    """Whether a client must have a certificate, and who vouches for it."""

    mtls_port: Port | None = None
    """A further port at which a client must have a certificate, beside clients without one at `grpc_port`."""

    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Networks of proxies whose `x-forwarded-for` is believed, a JSON list; of others the connection's end counts.

    Proxies behind one another must write one line of it: of several gRPC hands on the last.
    """

    oidc_issuers: Annotated[tuple[str, ...], NoDecode] = ()
    """The only issuers that identity providers may name, a JSON list of https URLs: the server asks them for keys."""

    oidc_key_urls: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses of issuers' keys (`jwks_uri`) that are on other hosts than the issuers themselves, a JSON list."""

    oidc_ca_file: Path | None = None
    """Certificates that vouch for issuers; absent means the system's authorities."""

    oidc_token_max_age_seconds: Annotated[float, Field(gt=0)] = 86_400.0
    """How long after its issue a token is accepted at the most, whatever it says of itself."""

    oidc_stale_keys_seconds: Annotated[float, Field(ge=60)] = 3600.0
    """For how long the keys of an issuer that does not answer go on counting."""

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

    max_calls_upstream: Annotated[int, Field(ge=1)] = 512
    """Calls that a worker has upstream at a time; further ones wait in the queue, by priority and fair share."""

    max_calls_waiting: Annotated[int, Field(ge=1)] = 1000
    """Calls that wait in a worker's queue; beyond it the least important are refused at once."""

    default_output_cap_tokens: Annotated[int, Field(ge=1)] = 8192
    """The ceiling's output bound for a caller who set no `max_output_tokens`; it is sent upstream, so it binds."""

    stream_step_tokens: Annotated[int, Field(ge=0)] = 0
    """Output tokens that a stream holds at a time; 0 holds its whole ceiling at once (docs/decisions/0012)."""

    worker_dead_after_seconds: Annotated[float, Field(ge=1, le=60)] = 20.0
    """Silence after which a worker counts as dead and what it left in flight goes to suspense."""

    suspense_policy: Literal["ceiling", "expected", "void"] = "ceiling"
    """At what an attempt of unknown outcome is booked until it is resolved: its worst case, what such calls mostly
    cost, or nothing. Only `ceiling` keeps hard budgets hard through any number of crashes."""

    prices_need_second_person: bool = False
    """Whether an import of prices only makes a proposal, which another principal than the importer must approve."""

    most_label_values: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Distinct values of labels that callers may bring in a calendar month (UTC), by tenant. A call with one more is
    served and charged all the same; its record has the value `other` there."""

    data_finding_days: Annotated[int, Field(ge=0, le=3650)] = 90
    """Days for which it is kept what data policies found in calls, which never has the values; 0 keeps it for ever."""

    usage_retention_months: Annotated[int, Field(ge=0, le=1200)] = 0
    """Whole months for which usage records stay behind their month; 0 keeps them for ever.

    Only records of a month whose export was confirmed are dropped, and never in the month after theirs. Roll-ups stay.
    """

    audit_anchor_dir: Path | None = None
    """Where the housekeeper writes checkpoints of the audit trail, outside PostgreSQL: a directory on another disk, or
    one that is copied to an object store with a lock. Absent means `audit-anchor` in `state_dir`."""

    audit_checkpoint_seconds: Annotated[float, Field(ge=0.1, le=86400)] = 60.0
    """How old an audit event may become until a checkpoint vouches for it."""

    audit_checkpoint_events: Annotated[int, Field(ge=1)] = 1000
    """After how many new audit events a checkpoint is made, whatever their age."""

    audit_retention_months: Annotated[int, Field(ge=0, le=1200)] = 0
    """Months after which audit events are dropped, as far as an anchored checkpoint vouches for them; 0 keeps all."""

    metrics_top_budgets: Annotated[int, Field(ge=0, le=1000)] = 100
    metrics_top_departments: Annotated[int, Field(ge=0, le=1000)] = 100
    """Of how many limits on money, those used most, and of how many departments, the dearest, the metrics tell one by
    one; of all others they tell the sum."""

    drain_seconds: Annotated[float, Field(gt=0)] = 30.0
    """How long a stopping worker waits for its calls to end."""

    @field_validator("upstream_addresses", mode="before")
    @classmethod
    def _check_upstream_addresses(cls, value: Any) -> Any:
        return checked_entries(value, upstream_address)

    @field_validator("egress_proxies", mode="before")
    @classmethod
    def _check_egress_proxies(cls, value: Any) -> Any:
        return checked_entries(value, egress_proxy)

    @field_validator("traces_endpoint")
    @classmethod
    def _check_traces_endpoint(cls, value: str) -> str:
        return collector_url(value)

    @model_validator(mode="after")
    def _check_traces_headers(self) -> Self:
        if self.traces_headers_file is not None and not is_kept_private(self.traces_endpoint):
            raise ValueError("TOLLHOUSE_TRACES_HEADERS_FILE needs an https URL in TOLLHOUSE_TRACES_ENDPOINT")
        return self

    @field_validator("log_levels", mode="before")
    @classmethod
    def _check_log_levels(cls, value: Any) -> Any:
        return decoded(value)

    @field_validator("upstream_token_urls", "oidc_issuers", "oidc_key_urls", mode="before")
    @classmethod
    def _check_urls(cls, value: Any) -> Any:
        urls = decoded(value)
        if not isinstance(urls, list | tuple):
            raise ValueError("must be a JSON list of URLs")
        for url in urls:
            check_token_url(url)
        return tuple(urls)

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _check_networks(cls, value: Any) -> Any:
        networks = decoded(value)
        if not isinstance(networks, list | tuple) or not all(isinstance(network, str) for network in networks):
            raise ValueError("must be a JSON list of networks")
        return tuple(str(ip_network(network)) for network in networks)

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_private_key_file is None):
            raise ValueError("TOLLHOUSE_TLS_CERTIFICATE_FILE and TOLLHOUSE_TLS_PRIVATE_KEY_FILE go together")
        asks_clients = self.tls_client_auth == "required" or self.mtls_port is not None
        if asks_clients and (self.tls_client_ca_file is None or self.tls_certificate_file is None):
            raise ValueError(
                "to ask clients for certificates TOLLHOUSE_TLS_CLIENT_CA_FILE and the server's own are needed"
            )
        return self

    def addresses(self) -> dict[str, str]:
        """Return every upstream address by its name, `gemini_api` first."""
        return {"gemini_api": self.gemini_base_url, "vertex": VERTEX_ADDRESS, **self.upstream_addresses}

    def egress_urls(self) -> dict[str, str]:
        """Return every egress proxy by its name. The URLs may hold passwords."""
        return {name: url.get_secret_value() for name, url in self.egress_proxies.items()}

    def environment(self) -> dict[str, str]:
        """Return the variables that give a child process these settings. They hold secrets: never in arguments."""
        values = {
            name: text_of(value)
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
                path=_PREFIX + "_".join(str(part) for part in problem["loc"]).upper(),
                description=problem["msg"].removeprefix("Value error, "),
            )
            for problem in error.errors(include_input=False)
        )
        raise InvalidRequest(violations=violations) from None


def environment_without_settings() -> dict[str, str]:
    """Return our environment without settings, for a process that is given them, and their secrets, another way."""
    return {name: value for name, value in os.environ.items() if not name.startswith((_PREFIX, "GEMINI_"))}


def unknown_variables(names: Iterable[str]) -> tuple[FieldViolation, ...]:
    """Name each `TOLLHOUSE_` variable that neither the server nor the command line reads."""
    known = {_PREFIX + name.upper() for name in Settings.model_fields} | _OTHERS
    return tuple(
        FieldViolation(path=name, description="is not a setting of Tollhouse")
        for name in sorted(names)
        if name.startswith(_PREFIX) and name not in known
    )
