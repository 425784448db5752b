"""The upstream addresses and egress proxies that settings allow: nobody else can name a host."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tollhouse_server.errors import FieldViolation
from tollhouse_server.routing.tables import AccountRow
from tollhouse_server.settings import VERTEX_ADDRESS, Settings
from tollhouse_server.upstream.protocol import UpstreamKind

REGION = "{region}"
# What google-genai does for these locations (3.4, _api_client.py).
_VERTEX_HOSTS = {
    "global": "https://aiplatform.googleapis.com",
    "us": "https://aiplatform.us.rep.googleapis.com",
    "eu": "https://aiplatform.eu.rep.googleapis.com",
}
# Both become part of a URL.
_REGION_FORM = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PROJECT_FORM = re.compile(r"[a-z0-9][a-z0-9.:-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """What accounts may name, by name. The URLs of proxies may hold passwords."""

    base_urls: Mapping[str, str]
    egress_urls: Mapping[str, str] = field(default_factory=dict, repr=False)

    def base_url(self, name: str, region: str) -> str:
        """Return an address for an account of this region.

        Raises:
            KeyError: settings do not name it.
        """
        template = self.base_urls[name]
        if template == VERTEX_ADDRESS and region in _VERTEX_HOSTS:
            return _VERTEX_HOSTS[region]
        return template.replace(REGION, region)

    def allows(self, row: AccountRow) -> bool:
        """Tell whether settings name the account's address and its proxy."""
        return row.base_url_key in self.base_urls and (not row.egress or row.egress in self.egress_urls)

    def violations(self, row: AccountRow) -> tuple[FieldViolation, ...]:
        """Return what keeps the account from being reached as it says, by the field of the request."""
        return tuple(FieldViolation(path=f"account.{name}", description=text) for name, text in self._problems(row))

    def _problems(self, row: AccountRow) -> Iterator[tuple[str, str]]:
        fitting = sorted(name for name in self.base_urls if _fits(name, row.kind))
        if row.base_url_key not in fitting:
            yield "endpoint", _one_of(fitting, f"the settings name no address of kind {row.kind}")
        if row.egress and row.egress not in self.egress_urls:
            yield "egress", _one_of(sorted(self.egress_urls), "the settings name no proxy")
        if row.region and not _REGION_FORM.fullmatch(row.region):
            yield "region", "must be lower-case letters, digits and hyphens"
        has_regions = row.base_url_key in fitting and REGION in self.base_urls[row.base_url_key]
        if not row.region and (row.kind == UpstreamKind.VERTEX or has_regions):
            yield "region", "is required for this upstream"
        if row.kind == UpstreamKind.VERTEX and not _PROJECT_FORM.fullmatch(row.project):
            yield "google_project", "must be the id of a Google Cloud project: Vertex AI needs one"


def addresses_of(settings: Settings) -> Addresses:
    """Return what the settings allow."""
    return Addresses(base_urls=settings.addresses(), egress_urls=settings.egress_urls())


def _fits(name: str, kind: str) -> bool:
    """Tell whether an address is for a kind of upstream: its name is the kind, or begins with it and a hyphen."""
    return name == kind or name.startswith(f"{kind}-")


def _one_of(names: list[str], otherwise: str) -> str:
    return f"must be one of: {', '.join(names)}" if names else otherwise
