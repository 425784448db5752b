"""CatalogService: which tiers and models there are, what they can do, and what they cost today."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final, TypeVar

from tollhouse.v1 import catalog_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.model_prices import model_prices
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import timestamp
from tollhouse_server.errors import ModelUnpriced
from tollhouse_server.pricing.terms import PriceBook
from tollhouse_server.routing.catalogue import Catalogue, Model, Tier

_TIER: Final = "tiers/"
_MODEL: Final = "models/"

Named = TypeVar("Named", Model, Tier)


class CatalogService:
    """Answers from the catalogue and the price book that are in force at the moment of the call."""

    def __init__(
        self, catalogue: Callable[[], Catalogue], price_book: Callable[[], PriceBook], pages: PageTokens
    ) -> None:
        self._catalogue = catalogue
        self._price_book = price_book
        self._pages = pages

    async def list_tiers(self, request: pb.ListTiersRequest, call: Call) -> pb.ListTiersResponse:
        after = self._pages.after(request)
        tiers = [one for one in self._catalogue().list_tiers() if one.tier > after]
        page, last = self._pages.split(request, tiers)
        token = self._pages.next(request, last.tier) if last else ""
        return pb.ListTiersResponse(tiers=map(_tier, page), next_page_token=token)

    async def get_tier(self, request: pb.GetTierRequest, call: Call) -> pb.Tier:
        return _tier(self._catalogue().get_tier(request.name.removeprefix(_TIER)))

    async def list_models(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        catalogue, now = self._catalogue(), datetime.now(UTC)
        after = self._pages.after(request)
        models = [one for one in _wanted(catalogue, request, now) if one.model > after]
        page, last = self._pages.split(request, models)
        token = self._pages.next(request, last.model) if last else ""
        messages = [_model(one, catalogue, self._price_book(), now) for one in page]
        return pb.ListModelsResponse(models=messages, next_page_token=token)

    async def get_model(self, request: pb.GetModelRequest, call: Call) -> pb.Model:
        catalogue = self._catalogue()
        model = catalogue.get_model(request.name.removeprefix(_MODEL))
        return _model(model, catalogue, self._price_book(), datetime.now(UTC))


def _wanted(catalogue: Catalogue, request: pb.ListModelsRequest, now: datetime) -> Iterator[Model]:
    models = catalogue.list_models()
    if request.HasField("tier"):
        choices = {choice.model for choice in catalogue.get_tier(request.tier.removeprefix(_TIER)).choices}
        models = tuple(one for one in models if one.model in choices)
    for model in models:
        if request.show_shut_down or model.shutdown_at is None or now < model.shutdown_at:
            yield model


def _tier(tier: Tier) -> pb.Tier:
    models = dict.fromkeys(choice.model for choice in tier.choices)
    return pb.Tier(
        name=f"{_TIER}{tier.tier}",
        display_name=tier.display_name,
        description=tier.description,
        models=[f"{_MODEL}{model}" for model in models],
    )


def _model(model: Model, catalogue: Catalogue, book: PriceBook, now: datetime) -> pb.Model:
    try:
        prices = book.terms(model.model, now)
    except ModelUnpriced:
        prices = None
    return pb.Model(
        name=f"{_MODEL}{model.model}",
        display_name=model.display_name,
        aliases=catalogue.aliases_of(model.model),
        capabilities=sorted(pb.Capability.Value(f"CAPABILITY_{one}") for one in model.capabilities),
        input_token_limit=model.bounds.input_token_limit or None,
        output_token_limit=model.bounds.output_token_limit or None,
        shutdown_time=timestamp(model.shutdown_at),
        successor=f"{_MODEL}{model.successor}" if model.successor else None,
        prices=() if prices is None else model_prices(prices),
        price_version=None if prices is None else str(prices.version),
        tiers=[f"{_TIER}{tier}" for tier in catalogue.tiers_of(model.model)],
    )
