"""Models and aliases through the administration plane, on a real PostgreSQL."""

from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import accounts_pb2, prices_pb2, routing_policies_pb2
from tollhouse.admin.v1 import models_pb2 as pb
from tollhouse_server.errors import (
    EtagMismatch,
    InvalidRequest,
    PermissionDenied,
    ResourceExists,
    ResourceInUse,
    ResourceNotFound,
    WrongState,
)
from tollhouse_server.routing.catalogue_file import AliasEntry, CatalogueFile, packaged_catalogue

from tests.integration.admin.catalogue import (
    OWN,
    SUNSET,
    add,
    add_alias,
    catalogue,
    epoch,
    moment,
    own_model,
    package,
    read,
    trail,
    update,
)
from tests.integration.admin.plane import Plane

PRICES = """
[[prices]]
model = "smollm2"
effective_from = 2025-01-01
source = "own machine"
input = "0"
output = "0"
zero_prices = true
"""


# --- models -----------------------------------------------------------------------------------------------------------


async def test_a_model_is_added_listed_changed_and_deleted(shop: Plane) -> None:
    """Everything that was said of it comes back; the list tells an administrator's models from the packaged ones."""
    created = await add(shop, tool_prompt_tokens=0, shutdown_time=moment(SUNSET), successor="models/gemma-4-31b-it")
    listed = await shop.call(pb.ListModelsRequest(origin=pb.CATALOGUE_ORIGIN_EDITED))
    changed = await update(shop, OWN, "display_name", "shutdown_time", "successor", display_name="Smol", etag="v1")

    assert created == listed.models[0]
    assert (created.name, created.display_name, created.etag) == (OWN, "smollm2", "v1")
    assert (created.HasField("tool_prompt_tokens"), created.tool_prompt_tokens) == (True, 0)
    assert (created.shutdown_time, created.successor) == (moment(SUNSET), "models/gemma-4-31b-it")
    assert (changed.display_name, changed.etag, changed.successor) == ("Smol", "v2", "")
    assert not changed.HasField("shutdown_time")
    assert (await catalogue(shop)).get_model("smollm2").display_name == "Smol"
    await shop.call(pb.DeleteModelRequest(name=OWN, etag="v2"))
    with pytest.raises(ResourceNotFound):
        await read(shop, OWN)


async def test_every_change_is_in_the_trail_and_moves_the_epoch_once(shop: Plane) -> None:
    """A dry run does neither; a request that is repeated is answered as before."""
    request = pb.CreateModelRequest(model_id="smollm2", model=own_model(), request_id=str(uuid4()))
    before = await epoch(shop)

    tried = await shop.call(pb.CreateModelRequest(model_id="smollm2", model=own_model(), validate_only=True))
    after_trying = await epoch(shop)
    created = await shop.call(request)
    again = await shop.call(request)
    await update(shop, OWN, "display_name", display_name="smollm2")

    assert (tried.name, after_trying) == (OWN, before)
    assert created == again
    assert await epoch(shop) == before + 1
    rows = await trail(shop, OWN)
    assert [(row.method.rsplit(".", 1)[1], row.before is None) for row in rows] == [
        ("CreateModel", True),
        ("UpdateModel", False),
    ]
    assert rows[0].after["inputTokenLimit"] == "8192"


async def test_a_model_with_a_defect_is_refused_with_the_field_named(shop: Plane) -> None:
    """The rules are those of a catalogue file; the field is told in the request's words."""
    defects: dict[str, dict[str, Any]] = {
        "model.upstreams": {"upstreams": []},
        "model.output_token_limit": {"output_token_limit": 0},
        "model.notice_time": {"notice_time": moment(SUNSET)},
        "model.shutdown_time": {"shutdown_time": Timestamp(seconds=10**12)},
        "model.successor": {"successor": "models/nobody"},
    }

    for path, fields in defects.items():
        with pytest.raises(InvalidRequest) as refused:
            await add(shop, **fields)
        assert [one.path for one in refused.value.violations] == [path]

    with pytest.raises(ResourceNotFound):
        await read(shop, OWN)


async def test_an_update_is_held_to_the_rules_and_to_its_etag(shop: Plane) -> None:
    """What an update leaves alone counts too; a stale etag, an unknown name and an output-only field are refused."""
    await add(shop)

    with pytest.raises(InvalidRequest, match=r"model\.output_token_limit"):
        await update(shop, OWN, "output_token_limit")
    with pytest.raises(EtagMismatch):
        await update(shop, OWN, "source", source="other", etag="v7")
    with pytest.raises(ResourceNotFound):
        await update(shop, "models/nobody", "source", source="other")
    with pytest.raises(InvalidRequest, match="cannot be changed"):
        await update(shop, OWN, "origin")
    assert (await read(shop, OWN)).etag == "v1"


async def test_models_and_aliases_share_their_names(shop: Plane) -> None:
    """A name leads to one model, never to two."""
    await add(shop)
    await add_alias(shop, "smol", OWN)

    taken = [
        pb.CreateModelRequest(model_id="smol", model=own_model()),
        pb.CreateModelRequest(model_id="smollm2", model=own_model()),
        pb.CreateAliasRequest(alias_id="smollm2", alias=pb.ModelAlias(model=OWN)),
        pb.CreateAliasRequest(alias_id="smol", alias=pb.ModelAlias(model=OWN)),
    ]

    for request in taken:
        with pytest.raises(ResourceExists):
            await shop.call(request)
    with pytest.raises(ResourceNotFound):
        await add_alias(shop, "other", "models/nobody")


async def test_a_model_that_something_needs_is_not_deleted(shop: Plane) -> None:
    """Whatever names the model is told, one after the other; without any of them it can go."""
    await add(shop)
    tier = routing_policies_pb2.GetTierTargetsRequest(name="tiers/nano")
    targets = list((await shop.call(tier)).targets)
    await shop.tenant("acme")
    steps: list[tuple[Any, Any, str]] = [
        (
            tier_of(*targets, routing_policies_pb2.TierTarget(model="smollm2")),
            tier_of(*targets),
            "tiers/nano",
        ),
        (
            pb.CreateAliasRequest(alias_id="smol", alias=pb.ModelAlias(model=OWN)),
            pb.DeleteAliasRequest(name="aliases/smol"),
            "aliases/smol",
        ),
        (successor(OWN), successor(""), "models/gemma-4-31b-it"),
        (
            accounts_pb2.CreateAccountRequest(account_id="gpu", account=account_with_limit()),
            accounts_pb2.DeleteAccountRequest(name="accounts/gpu"),
            "accounts/gpu",
        ),
        (
            policy(routing_policies_pb2.NameList(names=["smollm2"])),
            policy(None),
            "tenants/acme/routingPolicy",
        ),
    ]

    for name_it, forget_it, user in steps:
        await shop.call(name_it)
        with pytest.raises(ResourceInUse) as refused:
            await shop.call(pb.DeleteModelRequest(name=OWN))
        assert refused.value.used_by == user
        if user == "accounts/gpu":
            await shop.call(
                accounts_pb2.UpdateAccountRequest(
                    account=accounts_pb2.Account(name=user), update_mask=FieldMask(paths=["limits"])
                )
            )
        await shop.call(forget_it)

    await shop.call(pb.DeleteModelRequest(name=OWN, validate_only=True))
    await shop.call(prices_pb2.ImportPricesRequest(format=prices_pb2.PRICE_FILE_FORMAT_TOML, content=PRICES))
    with pytest.raises(ResourceInUse, match="priceBooks/2"):
        await shop.call(pb.DeleteModelRequest(name=OWN))


def tier_of(*targets: routing_policies_pb2.TierTarget) -> routing_policies_pb2.SetTierTargetsRequest:
    return routing_policies_pb2.SetTierTargetsRequest(name="tiers/nano", targets=targets)


def successor(name: str) -> pb.UpdateModelRequest:
    model = pb.Model(name="models/gemma-4-31b-it", successor=name)
    return pb.UpdateModelRequest(model=model, update_mask=FieldMask(paths=["successor"]))


def account_with_limit() -> accounts_pb2.Account:
    limit = accounts_pb2.AccountLimit(metric=accounts_pb2.AccountLimit.METRIC_REQUESTS_PER_MINUTE, model="smollm2")
    limit.amount.units = 60
    return accounts_pb2.Account(limits=[limit])


def policy(allowed: routing_policies_pb2.NameList | None) -> routing_policies_pb2.UpdateRoutingPolicyRequest:
    name = "tenants/acme/routingPolicy"
    return routing_policies_pb2.UpdateRoutingPolicyRequest(
        routing_policy=routing_policies_pb2.RoutingPolicy(name=name, allowed_models=allowed),
        update_mask=FieldMask(paths=["allowed_models"]),
    )


async def test_what_comes_with_tollhouse_is_dated_and_never_deleted(shop: Plane) -> None:
    """Otherwise the next release would bring it back."""
    name = "models/gemini-2.5-pro"
    refused: list[Any] = [pb.DeleteModelRequest(name=name), pb.DeleteAliasRequest(name="aliases/nano-banana-2.1")]
    for request in refused:
        with pytest.raises(WrongState):
            await shop.call(request)

    dated = await update(
        shop,
        name,
        "shutdown_time",
        "successor",
        shutdown_time=moment(SUNSET),
        successor="models/gemini-3.1-pro-preview",
    )

    assert dated.origin == pb.CATALOGUE_ORIGIN_EDITED
    with pytest.raises(WrongState):
        await shop.call(pb.DeleteModelRequest(name=name))


async def test_only_the_platform_administers_the_catalogue(shop: Plane) -> None:
    """The administrator of a tenant changes nothing that other tenants share, and reads no more than callers do."""
    await shop.tenant("acme")
    key = await shop.key("acme", "boss", ("tenant-admin", "tenants/acme"))
    requests: list[Any] = [
        pb.CreateModelRequest(model_id="x"),
        pb.ListModelsRequest(),
        pb.UpdateAliasRequest(alias=pb.ModelAlias(name="aliases/nano-banana-2.1")),
        pb.ImportCatalogueRequest(content="x"),
        pb.GetCatalogueFileRequest(),
    ]

    for request in requests:
        with pytest.raises(PermissionDenied):
            await shop.call(request, key=key)


async def test_pages_of_models_have_each_model_once(shop: Plane) -> None:
    """In the order of their names, whichever the size of a page."""
    names: list[str] = []
    token = ""

    while not names or token:
        page = await shop.call(pb.ListModelsRequest(page_size=5, page_token=token))
        names += [one.name for one in page.models]
        token = page.next_page_token

    assert names == sorted(f"models/{one.model}" for one in packaged_catalogue().models)


# --- aliases ----------------------------------------------------------------------------------------------------------


async def test_an_alias_passes_from_model_to_model_without_a_gap(shop: Plane) -> None:
    """A name such as flash-latest is pointed elsewhere in one step, and can be given an end."""
    created = await add_alias(shop, "flash-latest", "models/gemini-3.7-flash")
    alias = pb.ModelAlias(
        name=created.name, model="models/gemini-3.8-flash", shutdown_time=moment(SUNSET), etag=created.etag
    )

    changed = await shop.call(pb.UpdateAliasRequest(alias=alias))

    assert (changed.model, changed.shutdown_time, changed.etag) == (alias.model, moment(SUNSET), "v2")
    assert changed == await shop.call(pb.GetAliasRequest(name="aliases/flash-latest"))
    assert list((await read(shop, "models/gemini-3.8-flash")).aliases) == [changed]
    assert (await catalogue(shop)).get_model("flash-latest").model == "gemini-3.8-flash"
    with pytest.raises(EtagMismatch):
        await shop.call(pb.UpdateAliasRequest(alias=alias))
    with pytest.raises(EtagMismatch):
        await shop.call(pb.DeleteAliasRequest(name=alias.name, etag="v1"))
    await shop.call(pb.DeleteAliasRequest(name=alias.name, etag="v2"))
    assert not (await read(shop, "models/gemini-3.8-flash")).aliases


# --- later releases ---------------------------------------------------------------------------------------------------


async def test_a_later_release_leaves_the_administrators_entries_alone(shop: Plane) -> None:
    """His models, aliases and dates stay; packaged entries follow the release, and their etags tell it."""
    await update(shop, "models/gemini-2.5-pro", "display_name", display_name="Ours")
    await add_alias(shop, "latest", "models/gemini-3.7-flash")
    nano = pb.ModelAlias(name="aliases/nano-banana-2.1", model="models/gemini-3-pro-image")
    await shop.call(pb.UpdateAliasRequest(alias=nano))
    newer = with_models(
        **{
            "gemini-2.5-pro": {"display_name": "Theirs", "aliases": (AliasEntry(alias="pro-2.5"),)},
            "gemini-3.8-flash": {"display_name": "New", "aliases": (AliasEntry(alias="latest"),)},
        }
    )

    await package(shop, newer)

    found = await catalogue(shop)
    assert found.get_model("gemini-2.5-pro").display_name == "Ours"
    assert found.get_model("pro-2.5").model == "gemini-2.5-pro"
    assert found.get_model("latest").model == "gemini-3.7-flash"
    assert found.get_model("nano-banana-2.1").model == "gemini-3-pro-image"
    flash = await read(shop, "models/gemini-3.8-flash")
    assert (flash.display_name, flash.etag, flash.origin) == ("New", "v2", pb.CATALOGUE_ORIGIN_PACKAGED)
    assert (await read(shop, "models/gemini-3.7-flash")).etag == "v1"


async def test_a_model_that_was_deleted_and_is_packaged_later_is_the_packaged_one(shop: Plane) -> None:
    """Nothing of the administrator's own entry is left to mix with the release's."""
    await add(shop, "gemini-5-flash", display_name="Ours")
    await shop.call(pb.DeleteModelRequest(name="models/gemini-5-flash"))

    await package(shop, with_new_model("gemini-5-flash"))

    found = await read(shop, "models/gemini-5-flash")
    assert (found.display_name, found.origin) == ("Packaged", pb.CATALOGUE_ORIGIN_PACKAGED)


async def test_an_alias_gives_way_to_a_packaged_model_of_its_name(shop: Plane) -> None:
    """Who names a model gets that model; and a packaged alias gives way to an administrator's model."""
    await add_alias(shop, "gemini-5-flash", "models/gemini-3.8-flash")
    await add(shop, "latest")
    newer = with_new_model("gemini-5-flash", aliases=(AliasEntry(alias="latest"),))

    await package(shop, newer)

    found = await catalogue(shop)
    assert found.get_model("gemini-5-flash").display_name == "Packaged"
    assert found.get_model("latest").model == "latest"
    assert not (await read(shop, "models/gemini-3.8-flash")).aliases


def with_models(**changes: dict[str, Any]) -> CatalogueFile:
    """Return the packaged catalogue with other values for some models."""
    packaged = packaged_catalogue()
    models = [one.model_copy(update=changes.get(one.model, {})) for one in packaged.models]
    return packaged.model_copy(update={"models": tuple(models)})


def with_new_model(model: str, **values: Any) -> CatalogueFile:
    """Return the packaged catalogue with one more model, which tier flash names."""
    packaged = packaged_catalogue()
    new = packaged.models[1].model_copy(update={"model": model, "display_name": "Packaged", **values})
    tiers = [
        one.model_copy(update={"targets": (one.targets[0].model_copy(update={"model": model}), *one.targets)})
        if one.tier == "flash"
        else one
        for one in packaged.tiers
    ]
    return packaged.model_copy(update={"models": (*packaged.models, new), "tiers": tuple(tiers)})
