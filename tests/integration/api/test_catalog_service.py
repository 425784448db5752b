"""CatalogService over a catalogue and a price book in memory."""

from datetime import UTC, datetime, timedelta

import pytest
from tollhouse.v1 import catalog_pb2 as pb
from tollhouse_server.api.services.catalog_service import CatalogService
from tollhouse_server.errors import InvalidRequest, ModelUnknown
from tollhouse_server.pricing.book import packaged_prices
from tollhouse_server.pricing.ceiling import ModelBounds
from tollhouse_server.pricing.terms import PriceBook, PriceList
from tollhouse_server.routing.catalogue import Alias, Capability, Catalogue, CatalogueParts, Model, Tier, TierChoice
from tollhouse_server.upstream.protocol import UpstreamKind

from tests.integration.api.callers import PAGES, by

LONG_AGO, SOON = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)


def model(name: str, *, shutdown_at: datetime | None = None, successor: str = "") -> Model:
    """Build a model."""
    return Model(
        model=name,
        display_name=name.title(),
        upstreams=(UpstreamKind.GEMINI_API,),
        capabilities=frozenset({Capability.THINKING, Capability.GENERATE_CONTENT}),
        bounds=ModelBounds(input_token_limit=1000, output_token_limit=100),
        shutdown_at=shutdown_at,
        successor=successor,
    )


def prices(name: str, effective_from: datetime, nanos: int) -> PriceList:
    """Build a price list with one long-context price and a cheaper batch tier."""
    return PriceList(
        model=name,
        effective_from=effective_from,
        source="test",
        nanos_per_million={"input_text": nanos, "input_text_long": 2 * nanos, "grounding_query": 14_000_000_000},
        long_above_tokens=200_000,
        tier_permille={"batch": 500},
    )


CATALOGUE = Catalogue(
    CatalogueParts(
        models=(model("one"), model("two", shutdown_at=SOON, successor="one"), model("gone", shutdown_at=LONG_AGO)),
        aliases=(Alias(alias="one-latest", model="one"),),
        tiers=(
            Tier(
                tier="flash",
                display_name="Flash",
                description="Fast.",
                choices=(
                    TierChoice(model="two"),
                    TierChoice(model="one", region="europe-west4"),
                    TierChoice(model="one"),
                ),
            ),
            Tier(tier="pro", display_name="Pro", description="Deep.", choices=(TierChoice(model="one"),)),
        ),
        api_versions={},
    )
)
BOOK = PriceBook(7, [prices("one", LONG_AGO, 1_001), prices("one", SOON, 9_999)])


@pytest.fixture
def service() -> CatalogService:
    """The service."""
    return CatalogService(lambda: CATALOGUE, lambda: BOOK, PAGES)


async def test_tiers_are_listed_with_their_models_in_order_of_choice(service: CatalogService) -> None:
    """A model that is chosen twice, for two regions, is named once."""
    tiers = (await service.list_tiers(pb.ListTiersRequest(), by())).tiers

    assert [(tier.name, list(tier.models)) for tier in tiers] == [
        ("tiers/flash", ["models/two", "models/one"]),
        ("tiers/pro", ["models/one"]),
    ]


async def test_tiers_come_in_pages(service: CatalogService) -> None:
    """One at a time, each once."""
    first = await service.list_tiers(pb.ListTiersRequest(page_size=1), by())

    second = await service.list_tiers(pb.ListTiersRequest(page_size=1, page_token=first.next_page_token), by())

    assert [tier.name for tier in (*first.tiers, *second.tiers)] == ["tiers/flash", "tiers/pro"]
    assert not second.next_page_token


async def test_models_that_are_shut_down_are_listed_on_demand_only(service: CatalogService) -> None:
    """One that will be shut down is there, with the date and its successor."""
    usual = (await service.list_models(pb.ListModelsRequest(), by())).models
    everything = (await service.list_models(pb.ListModelsRequest(show_shut_down=True), by())).models

    assert [one.name for one in usual] == ["models/one", "models/two"]
    assert [one.name for one in everything] == ["models/gone", "models/one", "models/two"]
    assert (usual[1].successor, usual[1].shutdown_time.ToDatetime(UTC)) == ("models/one", SOON)
    assert not usual[0].HasField("successor")


async def test_models_come_in_pages_of_one_tier(service: CatalogService) -> None:
    """A token of one tier is not good for another."""
    request = pb.ListModelsRequest(tier="tiers/flash", page_size=1)
    first = await service.list_models(request, by())

    request.page_token = first.next_page_token
    second = await service.list_models(request, by())

    assert [one.name for one in (*first.models, *second.models)] == ["models/one", "models/two"]
    with pytest.raises(InvalidRequest):
        await service.list_models(pb.ListModelsRequest(tier="tiers/pro", page_token=first.next_page_token), by())


async def test_a_model_is_found_by_its_alias(service: CatalogService) -> None:
    """The answer has its own name and says what it can do."""
    found = await service.get_model(pb.GetModelRequest(name="models/one-latest"), by())

    assert (found.name, list(found.aliases)) == ("models/one", ["one-latest"])
    assert list(found.capabilities) == [pb.CAPABILITY_GENERATE_CONTENT, pb.CAPABILITY_THINKING]
    assert (found.input_token_limit, found.output_token_limit) == (1000, 100)
    assert list(found.tiers) == ["tiers/pro", "tiers/flash"]


async def test_the_prices_of_a_model_are_those_of_today_for_each_service_tier(service: CatalogService) -> None:
    """As a call is charged: rounded up where a factor does not divide, searches at one price for all."""
    found = await service.get_model(pb.GetModelRequest(name="models/one"), by())

    assert found.price_version == "7"
    assert [
        (price.sku, price.unit, price.service_tier, price.above_prompt_tokens, price.nanos_per_million_units)
        for price in found.prices
    ] == [
        ("input_text", "token", "standard", 0, 1_001),
        ("input_text", "token", "batch", 0, 501),
        ("input_text", "token", "standard", 200_000, 2_002),
        ("input_text", "token", "batch", 200_000, 1_001),
        ("grounding_query", "query", "standard", 0, 14_000_000_000),
    ]
    assert {price.effective_until.ToDatetime(UTC) for price in found.prices} == {SOON}


async def test_an_unpriced_model_shows_no_prices(service: CatalogService) -> None:
    """Calls to it are refused; it is not free."""
    found = await service.get_model(pb.GetModelRequest(name="models/two"), by())

    assert not found.prices
    assert not found.HasField("price_version")


@pytest.mark.parametrize("name", ["models/none", "models/flash"])
async def test_an_unknown_model_is_not_found(service: CatalogService, name: str) -> None:
    """A tier is no model."""
    with pytest.raises(ModelUnknown):
        await service.get_model(pb.GetModelRequest(name=name), by())


async def test_an_unknown_tier_is_not_found(service: CatalogService) -> None:
    """Neither by itself nor as a filter."""
    with pytest.raises(ModelUnknown):
        await service.get_tier(pb.GetTierRequest(name="tiers/none"), by())
    with pytest.raises(ModelUnknown):
        await service.list_models(pb.ListModelsRequest(tier="tiers/none"), by())


async def test_every_packaged_price_can_be_shown() -> None:
    """No SKU or service tier of the price file is beyond what the message says."""
    parsed = packaged_prices()
    book = PriceBook(1, parsed.lists)
    models = tuple(model(name) for name in {one.model for one in parsed.lists})
    service = CatalogService(lambda: Catalogue(CatalogueParts(models=models, api_versions={})), lambda: book, PAGES)

    listed = (await service.list_models(pb.ListModelsRequest(page_size=1000), by())).models

    assert {one.name for one in listed if one.prices} == {f"models/{one.model}" for one in models}
