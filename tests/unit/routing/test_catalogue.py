"""From a tier or a model's name to targets."""

from datetime import UTC, datetime, timedelta

import pytest
from tollhouse.v1 import catalog_pb2
from tollhouse_server.errors import InvalidRequest, ModelShutDown, ModelUnknown, NoUpstreamKey
from tollhouse_server.pricing.ceiling import ModelBounds
from tollhouse_server.routing.catalogue import (
    METHODS,
    Alias,
    Capability,
    Catalogue,
    CatalogueParts,
    Model,
    RouteRequest,
    Tier,
    TierChoice,
)
from tollhouse_server.routing.catalogue_file import packaged_catalogue, parse_catalogue
from tollhouse_server.routing.targets import Account
from tollhouse_server.upstream.protocol import UpstreamKind

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PAST, LATER = NOW - timedelta(days=1), NOW + timedelta(days=1)
VERSIONS = {("gemini_api", "*"): "v1beta", ("gemini_api", "embedContent"): "v1", ("vertex", "*"): "v1beta1"}


def model(name: str, *, method: str = "generateContent", **fields: object) -> Model:
    defaults: dict[str, object] = {
        "model": name,
        "display_name": name,
        "upstreams": (UpstreamKind.GEMINI_API, UpstreamKind.VERTEX),
        "capabilities": frozenset({METHODS[method]}),
        "bounds": ModelBounds(input_token_limit=1_000, output_token_limit=100),
    }
    return Model(**defaults | fields)  # type: ignore[arg-type]


def account(name: str, kind: UpstreamKind = UpstreamKind.GEMINI_API, region: str = "") -> Account:
    return Account(account_id=name, kind=kind, project=f"project-{name}", base_url=f"http://{name}", region=region)


def catalogue(
    *models: Model, tiers: dict[str, list[TierChoice]] | None = None, accounts: tuple[Account, ...] = ()
) -> Catalogue:
    parts = CatalogueParts(
        models=models,
        aliases=(
            Alias(alias="latest", model=models[0].model),
            Alias(alias="old-name", model=models[0].model, shutdown_at=NOW),
        ),
        tiers=tuple(
            Tier(tier=name, display_name=name, description="", choices=tuple(choices))
            for name, choices in (tiers or {}).items()
        ),
        accounts=accounts or (account("b"), account("a"), account("v", UpstreamKind.VERTEX, "europe-west4")),
        api_versions=VERSIONS,
    )
    return Catalogue(parts)


def places(found: Catalogue, **query: object) -> list[tuple[str, str]]:
    defaults: dict[str, object] = {"tier": None, "model": None, "method": "generateContent", "at": NOW}
    route = found.resolve(RouteRequest(**defaults | query))  # type: ignore[arg-type]
    return [(target.model, target.account_id) for target in route.targets]


def test_a_model_goes_to_every_account_that_serves_it_in_a_stable_order() -> None:
    """The kinds in the model's order, accounts in the order of their ids."""
    assert places(catalogue(model("m")), model="m") == [("m", "a"), ("m", "b"), ("m", "v")]


def test_a_target_carries_all_that_an_attempt_needs() -> None:
    """Address, project and the API version of this method come with the target."""
    found = catalogue(model("m", method="embedContent"))

    route = found.resolve(RouteRequest(model="models/m", method="embedContent", at=NOW))

    first = route.targets[0]
    assert (first.base_url, first.project, first.api_version) == ("http://a", "project-a", "v1")
    assert route.targets[-1].api_version == "v1beta1"
    assert route.tier == ""


def test_a_tier_offers_its_models_in_order_and_can_be_held_to_the_first() -> None:
    """Fallback means the tier's further models; without it, only the first one's accounts."""
    found = catalogue(
        model("m"), model("n"), tiers={"t": [TierChoice(model="n"), TierChoice(model="m")]}, accounts=(account("a"),)
    )

    assert places(found, tier="t") == [("n", "a"), ("m", "a")]
    assert places(found, tier="t", allow_fallback=False) == [("n", "a")]


def test_a_model_named_directly_is_booked_under_its_tier() -> None:
    """Limits on a tier hold for its models however they are named; the tier it leads comes first."""
    tiers = {"a": [TierChoice(model="n"), TierChoice(model="m")], "b": [TierChoice(model="m")]}
    found = catalogue(model("m"), model("n"), tiers=tiers)

    assert found.resolve(RouteRequest(model="m", method="generateContent", at=NOW)).tier == "b"
    assert found.tiers_of("m") == ("b", "a")


def test_an_alias_works_until_its_date_and_then_names_the_model() -> None:
    """The error of a retired alias tells what to use."""
    found = catalogue(model("m"))

    assert places(found, model="latest")[0] == ("m", "a")
    assert places(found, model="old-name", at=PAST)[0] == ("m", "a")
    with pytest.raises(ModelShutDown, match=r"old-name was shut down on 2026-11-21; use m\."):
        places(found, model="old-name")


def test_a_model_is_refused_from_its_shutdown_date_on() -> None:
    """To the moment, with the successor in the error."""
    found = catalogue(model("m", shutdown_at=NOW, successor="n"), model("n"))

    assert places(found, model="m", at=PAST)
    with pytest.raises(ModelShutDown, match="use n"):
        places(found, model="m")


def test_a_tier_goes_on_without_a_model_that_is_shut_down() -> None:
    """Only when all of them are gone does the tier say so."""
    choices = [TierChoice(model="m"), TierChoice(model="n")]
    found = catalogue(
        model("m", shutdown_at=NOW), model("n", shutdown_at=LATER), tiers={"t": choices}, accounts=(account("a"),)
    )

    assert places(found, tier="t", allow_fallback=False) == [("n", "a")]
    with pytest.raises(ModelShutDown):
        places(found, tier="t", at=LATER)


@pytest.mark.parametrize("query", [{"model": "nothing"}, {"tier": "nothing"}, {"model": "M"}, {"tier": "m"}])
def test_unknown_names_are_refused(query: dict[str, str]) -> None:
    """Neither a tier nor a model of this name."""
    with pytest.raises(ModelUnknown):
        places(catalogue(model("m")), **query)


def test_a_call_names_a_tier_or_a_model() -> None:
    """Neither is an invalid request."""
    with pytest.raises(InvalidRequest, match="name a tier or a model"):
        places(catalogue(model("m")))


def test_a_model_serves_only_its_methods() -> None:
    """An embedding model generates nothing; an unknown method is served by none."""
    found = catalogue(model("m", method="embedContent"), tiers={"t": [TierChoice(model="m")]})

    for query in ({"model": "m"}, {"tier": "t"}, {"model": "m", "method": "inventContent"}):
        with pytest.raises(InvalidRequest, match="does not serve"):
            places(found, **query)


def test_a_region_narrows_the_accounts() -> None:
    """Only accounts of the region serve; none is a clear error and not another region."""
    found = catalogue(model("m"))

    assert places(found, model="m", region="europe-west4") == [("m", "v")]
    with pytest.raises(NoUpstreamKey):
        places(found, model="m", region="us-east1")


def test_a_choice_can_be_bound_to_an_account_or_a_region() -> None:
    """A tier may send one model to one account only."""
    choices = [TierChoice(model="m", account_id="b"), TierChoice(model="m", region="europe-west4")]
    found = catalogue(model("m"), tiers={"t": choices})

    assert places(found, tier="t") == [("m", "b"), ("m", "v")]


def test_the_shut_down_image_model_names_its_successor() -> None:
    """gemini-2.5-flash-image ended on 2026-10-02; nano-banana-2.1 takes its place."""
    entry = next(one for one in packaged_catalogue().models if one.model == "gemini-2.5-flash-image")

    assert entry.shutdown_at == datetime(2026, 10, 2, 7, tzinfo=UTC)
    assert entry.successor == "gemini-nano-banana-2.1"


def test_capabilities_are_those_of_the_proto() -> None:
    """The catalogue can say nothing that a caller could not be told."""
    told = {value.name.removeprefix("CAPABILITY_") for value in catalog_pb2.Capability.DESCRIPTOR.values}

    assert {one.value for one in Capability} <= told


def _file(text: str = "") -> str:
    return (
        'revision = 1\n[api_versions]\ngemini_api = {"*" = "v1"}\nvertex = {"*" = "v1"}\n'
        'openai_compatible = {"*" = "v1"}\n[[tiers]]\ntier = "t"\ndisplay_name = "T"\ndescription = "d"\n'
        'targets = [{ model = "m" }]\n[[models]]\nmodel = "m"\ndisplay_name = "M"\nupstreams = ["gemini_api"]\n'
        'capabilities = []\ninput_token_limit = 5\noutput_token_limit = 5\nsource = "s"\n' + text
    )


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (_file('colour = "red"'), "models[0].colour"),
        (_file().replace('source = "s"', 'source = ""'), "models[0].source"),
        (_file().replace("input_token_limit = 5", "input_token_limit = -1"), "models[0].input_token_limit"),
        (_file().replace("input_token_limit = 5", 'input_token_limit = "5"'), "models[0].input_token_limit"),
        (_file().replace('{ model = "m" }', '{ model = "q" }'), "tiers[0].targets[0].model"),
        (_file('successor = "q"'), "models[0].successor"),
        (_file('aliases = [{ alias = "m" }]'), "models[0].aliases[0].alias"),
        (_file().replace('vertex = {"*" = "v1"}', "vertex = {}"), "api_versions.vertex"),
        (_file("shutdown_at = 2026-01-01T00:00:00"), "models[0].shutdown_at"),
        ("revision =", ""),
    ],
)
def test_a_wrong_catalogue_is_refused_with_the_field_named(text: str, path: str) -> None:
    """Unknown keys, blanks, negative numbers, dangling names, doubles, moments without a zone."""
    with pytest.raises(InvalidRequest) as refused:
        parse_catalogue(text)

    assert path in {violation.path for violation in refused.value.violations}


def test_a_right_catalogue_is_taken() -> None:
    """The file that the cases above break is right before they break it."""
    assert parse_catalogue(_file()).models[0].model == "m"
