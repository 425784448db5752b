"""Builders of small catalogues."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from tollhouse_server.pricing.ceiling import ModelBounds
from tollhouse_server.routing.catalogue import Catalogue, CatalogueParts, RouteRequest
from tollhouse_server.routing.models import Alias, Capability, Model, Tier, TierChoice
from tollhouse_server.routing.policies import RoutingPolicy
from tollhouse_server.routing.targets import Account, UpstreamKeyMeta
from tollhouse_server.upstream.protocol import UpstreamKind

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ACME = "tenants/acme"
SALES = f"{ACME}/departments/sales"
CRM = f"{SALES}/projects/crm"
VERSIONS = {(kind.value, "*"): "v1" for kind in UpstreamKind}


def model(name: str, *capabilities: Capability, **fields: Any) -> Model:
    """Return a model that generates, and can do these things besides."""
    defaults: dict[str, Any] = {
        "model": name,
        "display_name": name,
        "upstreams": (UpstreamKind.GEMINI_API, UpstreamKind.VERTEX),
        "capabilities": frozenset({Capability.GENERATE_CONTENT, *capabilities}),
        "bounds": ModelBounds(input_token_limit=1_000, output_token_limit=100),
    }
    return Model(**defaults | fields)


def account(name: str, kind: UpstreamKind = UpstreamKind.GEMINI_API, **fields: Any) -> Account:
    """Return an account, of the Developer API unless another kind is named."""
    return Account(account_id=name, kind=kind, project=name, base_url=f"http://{name}", **fields)


def vertex(name: str, region: str, **fields: Any) -> Account:
    """Return an account of Vertex AI in a region."""
    return account(name, UpstreamKind.VERTEX, region=region, **fields)


def catalogue(
    *models: Model,
    tiers: Mapping[str, list[TierChoice]] | None = None,
    accounts: tuple[Account, ...] = (),
    policies: Mapping[str, RoutingPolicy] | None = None,
    aliases: tuple[Alias, ...] = (),
    keyless: Collection[str] = (),
) -> Catalogue:
    """Return a catalogue; without accounts it has one of the Developer API, `a`. All but the `keyless` have a key."""
    accounts = accounts or (account("a"),)
    return Catalogue(
        CatalogueParts(
            models=models,
            aliases=aliases,
            tiers=tuple(
                Tier(tier=name, display_name=name, description="", choices=tuple(choices))
                for name, choices in (tiers or {}).items()
            ),
            accounts=accounts,
            keys=tuple(_key(one.account_id) for one in accounts if one.account_id not in keyless),
            api_versions=VERSIONS,
            policies=policies,
        )
    )


def _key(account_id: str) -> UpstreamKeyMeta:
    return UpstreamKeyMeta(account_id=account_id, key_id="first", vault_version=1, fingerprint="", created_at=NOW)


def request(**fields: Any) -> RouteRequest:
    """Return a call of project crm of department sales of tenant acme."""
    defaults: dict[str, Any] = {
        "method": "generateContent",
        "at": NOW,
        "tenant_id": "acme",
        "department_path": ("sales",),
        "project_id": "crm",
        "environment": "live",
    }
    return RouteRequest(**defaults | fields)


def text_of(text: str) -> dict[str, Any]:
    """Return a request with one turn of text."""
    return {"contents": [{"role": "user", "parts": [{"text": text}]}]}
