"""The catalogue in memory: immutable; answers which upstream targets can serve a tier or a model, in order."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tollhouse_server.errors import InvalidRequest, ModelShutDown, ModelUnknown, NoUpstreamKey
from tollhouse_server.names import invalid
from tollhouse_server.pricing.ceiling import ModelBounds
from tollhouse_server.routing.targets import Account, Target, UpstreamKeyMeta
from tollhouse_server.upstream.protocol import UpstreamKind


class Capability(StrEnum):
    """What a model can do, named as in `tollhouse.v1.Capability` without its prefix."""

    GENERATE_CONTENT = "GENERATE_CONTENT"
    STREAM_GENERATE_CONTENT = "STREAM_GENERATE_CONTENT"
    COUNT_TOKENS = "COUNT_TOKENS"
    EMBED_CONTENT = "EMBED_CONTENT"
    IMAGE_INPUT = "IMAGE_INPUT"
    AUDIO_INPUT = "AUDIO_INPUT"
    VIDEO_INPUT = "VIDEO_INPUT"
    DOCUMENT_INPUT = "DOCUMENT_INPUT"
    IMAGE_OUTPUT = "IMAGE_OUTPUT"
    AUDIO_OUTPUT = "AUDIO_OUTPUT"
    FUNCTION_CALLING = "FUNCTION_CALLING"
    STRUCTURED_OUTPUT = "STRUCTURED_OUTPUT"
    THINKING = "THINKING"
    CONTEXT_CACHING = "CONTEXT_CACHING"
    BATCH = "BATCH"


METHODS: Mapping[str, Capability] = {
    "generateContent": Capability.GENERATE_CONTENT,
    "streamGenerateContent": Capability.STREAM_GENERATE_CONTENT,
    "countTokens": Capability.COUNT_TOKENS,
    "embedContent": Capability.EMBED_CONTENT,
    "batchEmbedContents": Capability.EMBED_CONTENT,
}
"""Gemini's method names, and what a model must be able to do to serve them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of the catalogue; `bounds` is what pricing needs to know of it."""

    model: str
    display_name: str
    upstreams: tuple[UpstreamKind, ...]
    capabilities: frozenset[Capability]
    bounds: ModelBounds
    shutdown_at: datetime | None = None
    successor: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """Another name of a model; after `shutdown_at` it answers with the model's own name."""

    alias: str
    model: str
    shutdown_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TierChoice:
    """One choice of a tier; empty account and region mean any account that can serve the model."""

    model: str
    account_id: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A tier and its choices, the first one first."""

    tier: str
    display_name: str
    description: str
    choices: tuple[TierChoice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The targets for a call, the first choice first; `tier` is "" for a model that stands behind none."""

    tier: str
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueParts:
    """Everything a catalogue is made of. `api_versions` is by (kind, method), where method "*" is any other."""

    models: tuple[Model, ...] = ()
    aliases: tuple[Alias, ...] = ()
    tiers: tuple[Tier, ...] = ()
    accounts: tuple[Account, ...] = ()
    keys: tuple[UpstreamKeyMeta, ...] = ()
    api_versions: Mapping[tuple[str, str], str]


class Catalogue:
    """One state of the catalogue: immutable, safe to share between tasks."""

    def __init__(self, parts: CatalogueParts) -> None:
        self._models = {one.model: one for one in sorted(parts.models, key=lambda one: one.model)}
        self._aliases = {one.alias: one for one in parts.aliases}
        self._tiers = {one.tier: one for one in sorted(parts.tiers, key=lambda one: one.tier)}
        self._api_versions = dict(parts.api_versions)
        self._accounts: dict[UpstreamKind, list[Account]] = {}
        for account in sorted(parts.accounts, key=lambda one: one.account_id):
            self._accounts.setdefault(account.kind, []).append(account)
        self._keys: dict[str, tuple[UpstreamKeyMeta, ...]] = {}
        for key in sorted(parts.keys, key=lambda one: (one.account_id, one.key_id)):
            self._keys[key.account_id] = (*self._keys.get(key.account_id, ()), key)

    def list_tiers(self) -> tuple[Tier, ...]:
        """Return every tier in the order of their names."""
        return tuple(self._tiers.values())

    def list_models(self) -> tuple[Model, ...]:
        """Return every model in the order of their names, those that are shut down too."""
        return tuple(self._models.values())

    def get_tier(self, tier: str) -> Tier:
        """Return one tier.

        Raises:
            ModelUnknown: there is no tier of this name.
        """
        found = self._tiers.get(tier)
        if found is None:
            raise ModelUnknown(name=tier)
        return found

    def get_model(self, name: str) -> Model:
        """Return a model by its id or one of its aliases, shut down or not.

        Raises:
            ModelUnknown: there is no model of this name.
        """
        alias = self._aliases.get(name)
        found = self._models.get(alias.model if alias else name)
        if found is None:
            raise ModelUnknown(name=name)
        return found

    def aliases_of(self, model: str) -> tuple[str, ...]:
        """Return the other names of a model."""
        return tuple(sorted(one.alias for one in self._aliases.values() if one.model == model))

    def tiers_of(self, model: str) -> tuple[str, ...]:
        """Return the tiers that a model stands behind; first the one in which it comes first."""
        ranks = [
            (position, tier.tier)
            for tier in self._tiers.values()
            for position, choice in enumerate(tier.choices)
            if choice.model == model
        ]
        return tuple(dict.fromkeys(tier for _, tier in sorted(ranks)))

    def keys_of(self, account_id: str) -> tuple[UpstreamKeyMeta, ...]:
        """Return an account's active keys in the order of their ids."""
        return self._keys.get(account_id, ())

    def accounts(self) -> tuple[Account, ...]:
        """Return every active account whose address the settings allow."""
        return tuple(account for accounts in self._accounts.values() for account in accounts)

    def resolve(
        self,
        *,
        tier: str | None,
        model: str | None,
        method: str,
        at: datetime,
        region: str | None = None,
        allow_fallback: bool = True,
    ) -> Route:
        """Return where a call can go.

        Args:
            tier: a tier's name; not needed beside a model.
            model: a model's id or alias, with or without "models/"; it holds where both are given.
            method: a key of METHODS.
            at: the moment of the call, which decides what is shut down.
            region: only accounts of this region; None means any.
            allow_fallback: whether a tier's further models may serve the call where its first cannot.

        Raises:
            ModelUnknown: no tier or model of this name.
            ModelShutDown: its date has passed; the error names the successor.
            InvalidRequest: neither is named, or the model does not serve the method.
            NoUpstreamKey: no active account can serve it.
        """
        if model:
            return self._route_of_model(model.removeprefix("models/"), method, at, region)
        if tier:
            return self._route_of_tier(tier.removeprefix("tiers/"), method, at, region, allow_fallback=allow_fallback)
        raise invalid("model", "name a tier or a model")

    def _route_of_model(self, name: str, method: str, at: datetime, region: str | None) -> Route:
        alias = self._aliases.get(name)
        if alias is not None and _is_over(alias.shutdown_at, at):
            raise _shut_down(name, alias.shutdown_at, alias.model)
        found = self.get_model(name)
        self._check(found, method, at)
        targets = tuple(self._targets(found, TierChoice(model=found.model), method, region))
        if not targets:
            raise NoUpstreamKey(model=found.model)
        return Route(tier=next(iter(self.tiers_of(found.model)), ""), targets=targets)

    def _route_of_tier(
        self, name: str, method: str, at: datetime, region: str | None, *, allow_fallback: bool
    ) -> Route:
        choices = self.get_tier(name).choices
        refusal: ModelShutDown | InvalidRequest | None = None
        targets: list[Target] = []
        first = ""
        for choice in choices:
            found = self._models[choice.model]
            try:
                self._check(found, method, at)
            except (ModelShutDown, InvalidRequest) as error:
                refusal = refusal or error
                continue
            first = first or found.model
            if allow_fallback or found.model == first:
                targets.extend(self._targets(found, choice, method, region))
        if targets:
            return Route(tier=name, targets=tuple(dict.fromkeys(targets)))
        if first or refusal is None:
            raise NoUpstreamKey(model=first or name)
        raise refusal

    def _check(self, model: Model, method: str, at: datetime) -> None:
        if _is_over(model.shutdown_at, at):
            raise _shut_down(model.model, model.shutdown_at, model.successor)
        if METHODS.get(method) not in model.capabilities:
            raise invalid("model", f"{model.model} does not serve {method}")

    def _targets(self, model: Model, choice: TierChoice, method: str, region: str | None) -> Iterator[Target]:
        for account in self._serving(model.upstreams):
            if choice.account_id not in ("", account.account_id) or choice.region not in ("", account.region):
                continue
            if region in (None, "", account.region):
                yield Target(
                    kind=account.kind,
                    account_id=account.account_id,
                    project=account.project,
                    base_url=account.base_url,
                    api_version=self._api_version(account.kind, method),
                    model=model.model,
                    region=account.region,
                    endpoint=account.endpoint,
                    egress_url=account.egress_url,
                )

    def _serving(self, kinds: Iterable[UpstreamKind]) -> Iterator[Account]:
        for kind in kinds:
            yield from self._accounts.get(kind, ())

    def _api_version(self, kind: str, method: str) -> str:
        return self._api_versions.get((kind, method)) or self._api_versions[kind, "*"]


def _is_over(shutdown_at: datetime | None, at: datetime) -> bool:
    return shutdown_at is not None and at >= shutdown_at


def _shut_down(model: str, shutdown_at: datetime | None, successor: str) -> ModelShutDown:
    day = shutdown_at.date().isoformat() if shutdown_at else ""
    return ModelShutDown(model=model, shutdown_on=day, successor=successor)
