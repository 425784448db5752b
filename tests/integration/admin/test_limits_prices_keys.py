"""Limits, prices, accounts and upstream keys, as administrators see them."""

import time
from pathlib import Path

import pytest
import tollhouse_server.pricing
from google.protobuf.field_mask_pb2 import FieldMask
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import accounts_pb2, limits_pb2, prices_pb2, upstream_keys_pb2
from tollhouse_server.audit.store import list_events
from tollhouse_server.errors import (
    EtagMismatch,
    InvalidRequest,
    PriceFileInvalid,
    ResourceExists,
    ResourceInUse,
    ResourceNotFound,
    SecretMissing,
)
from tollhouse_server.routing.catalogue_file import packaged_catalogue
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.connection import VaultAddress

from tests.drivers.openbao import TestOpenBao
from tests.integration.admin.catalogue import package
from tests.integration.admin.plane import Plane

PACKAGED = (Path(tollhouse_server.pricing.__file__).parent / "price_book.toml").read_text()
SECRET = "AIza-a-key-that-must-be-seen-nowhere"


def _budget(**fields: object) -> limits_pb2.Limit:
    given: dict[str, object] = {
        "scope": "tenants/acme/departments/sales",
        "metric": limits_pb2.LIMIT_METRIC_COST,
        "window": limits_pb2.LIMIT_WINDOW_MONTH,
        "amount": limits_pb2.LimitAmount(money=Money(currency_code="USD", units=100)),
    }
    return limits_pb2.Limit(**{**given, **fields})  # type: ignore[arg-type]


async def test_a_budget_is_created_read_changed_and_deleted(plane: Plane) -> None:
    """Its amount is money, its window the month, its use zero at first; deleted, its name is free again."""
    await plane.tenant("acme")
    request = limits_pb2.CreateLimitRequest(parent="tenants/acme", limit_id="cap", limit=_budget())

    created = await plane.call(request)
    changed = await plane.call(
        limits_pb2.UpdateLimitRequest(
            limit=limits_pb2.Limit(
                name=created.name, etag=created.etag, amount=limits_pb2.LimitAmount(money=Money(units=50))
            ),
            update_mask=FieldMask(paths=["amount"]),
        )
    )

    assert (created.name, created.mode) == ("tenants/acme/limits/cap", limits_pb2.LIMIT_MODE_STRICT)
    assert created.current.held == limits_pb2.LimitAmount(money=Money(currency_code="USD"))
    assert created.current.reset_time.seconds > time.time()
    assert (changed.amount.money.units, changed.etag != created.etag) == (50, True)
    with pytest.raises(ResourceExists):
        await plane.call(request)
    with pytest.raises(EtagMismatch):
        await plane.call(limits_pb2.DeleteLimitRequest(name=created.name, etag=created.etag))
    await plane.call(limits_pb2.DeleteLimitRequest(name=created.name, etag=changed.etag))
    with pytest.raises(ResourceNotFound):
        await plane.call(limits_pb2.GetLimitRequest(name=created.name))
    await plane.call(request)


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        (_budget(amount=limits_pb2.LimitAmount(units=5)), "amount.money"),
        (_budget(metric=limits_pb2.LIMIT_METRIC_REQUESTS), "amount.units"),
        (_budget(amount=limits_pb2.LimitAmount(money=Money(units=-1))), "negative"),
        (_budget(metric=limits_pb2.LIMIT_METRIC_UNSPECIFIED), "metric"),
        (_budget(window=limits_pb2.LIMIT_WINDOW_UNSPECIFIED), "window"),
        (_budget(scope="tenants/platform"), "scope"),
    ],
)
async def test_a_limit_that_makes_no_sense_is_refused(plane: Plane, limit: limits_pb2.Limit, problem: str) -> None:
    """The error names the field."""
    await plane.tenant("acme")

    with pytest.raises(InvalidRequest, match=problem):
        await plane.call(limits_pb2.CreateLimitRequest(parent="tenants/acme", limit=limit))


async def test_a_limit_needs_a_scope_that_exists(plane: Plane) -> None:
    """A limit on nothing would bind nobody, silently."""
    await plane.tenant("acme")
    nowhere = _budget(scope="tenants/acme/departments/none")

    with pytest.raises(ResourceNotFound):
        await plane.call(limits_pb2.CreateLimitRequest(parent="tenants/acme", limit=nowhere))


async def test_limits_are_listed_by_scope(plane: Plane) -> None:
    """One scope's limits, or all of the tenant's, page by page."""
    await plane.tenant("acme")
    for number in range(3):
        scope = "tenants/acme" if number else "tenants/acme/departments/sales"
        limit = _budget(scope=scope)
        await plane.call(limits_pb2.CreateLimitRequest(parent="tenants/acme", limit_id=f"l-{number}", limit=limit))

    everything = await plane.call(limits_pb2.ListLimitsRequest(parent="tenants/acme", page_size=2))
    of_tenant = await plane.call(limits_pb2.ListLimitsRequest(parent="tenants/acme", scope="tenants/acme"))

    assert [limit.name[-3:] for limit in everything.limits] == ["l-0", "l-1"]
    assert everything.next_page_token
    assert [limit.name[-3:] for limit in of_tenant.limits] == ["l-1", "l-2"]


async def test_a_price_file_is_tried_then_imported(plane: Plane) -> None:
    """The dry run answers the same difference as the import, and leaves the book alone."""
    request = prices_pb2.ImportPricesRequest(format=prices_pb2.PRICE_FILE_FORMAT_TOML, content=PACKAGED)
    request.validate_only = True
    dry = await plane.call(request)
    with pytest.raises(ResourceNotFound):
        await plane.call(prices_pb2.GetPriceBookRequest(name="priceBooks/current"))

    request.validate_only = False
    imported = await plane.call(request)
    again = await plane.call(request)

    assert dry.changes == imported.changes
    assert len(imported.changes) == imported.price_book.price_count > 100
    assert (len(again.changes), again.unchanged_count) == (0, imported.price_book.price_count)
    book = await plane.call(prices_pb2.GetPriceBookRequest(name="priceBooks/current"))
    assert book == again.price_book
    assert book.importer == "tenants/platform/principals/administrator"


async def test_prices_are_listed_whole_over_pages(plane: Plane) -> None:
    """Pages put together are the book; a moment narrows each SKU to one price."""
    content = PACKAGED
    await plane.call(prices_pb2.ImportPricesRequest(format=prices_pb2.PRICE_FILE_FORMAT_TOML, content=content))
    request = prices_pb2.ListPricesRequest(page_size=100)
    listed: list[prices_pb2.Price] = []
    while True:
        page = await plane.call(request)
        listed += page.prices
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break

    keys = [(price.model, price.sku, price.effective_time.seconds) for price in listed]
    book = await plane.call(prices_pb2.GetPriceBookRequest(name="priceBooks/1"))
    assert keys == sorted(set(keys))
    assert len(keys) == book.price_count
    at = prices_pb2.ListPricesRequest(model="gemini-4-argon")
    at.effective_at.FromJsonString("2026-11-30T12:00:00Z")
    now = await plane.call(at)
    assert {price.sku: price.amount.units for price in now.prices}["input_text"] == 2


@pytest.mark.parametrize(
    ("notation", "content"),
    [
        (prices_pb2.PRICE_FILE_FORMAT_JSON, PACKAGED),
        (prices_pb2.PRICE_FILE_FORMAT_YAML, "prices: ["),
        (prices_pb2.PRICE_FILE_FORMAT_TOML, "prices = []"),
        (prices_pb2.PRICE_FILE_FORMAT_YAML, "revision: 1\nnote: x\nprices:\n- {model: m-1, input_text: -0.1}"),
    ],
)
async def test_a_wrong_price_file_changes_nothing(
    plane: Plane, notation: "prices_pb2.PriceFileFormat.ValueType", content: str
) -> None:
    """It is refused whole, with the place named, and no version appears."""
    with pytest.raises(PriceFileInvalid):
        await plane.call(prices_pb2.ImportPricesRequest(format=notation, content=content))

    with pytest.raises(ResourceNotFound):
        await plane.call(prices_pb2.GetPriceBookRequest(name="priceBooks/current"))


async def test_a_surcharge_is_shown_as_a_price_of_money(plane: Plane) -> None:
    """The import says what changes, and the list shows per cent and the span in which it holds."""
    content = PACKAGED + "".join(
        f'\n[[surcharges]]\nendpoint = "vertex-relay"\npercent = "{percent}"\neffective_from = {day}\n'
        for percent, day in (("7.50", "2026-11-01"), ("0", "2026-12-01"))
    )
    request = prices_pb2.ImportPricesRequest(format=prices_pb2.PRICE_FILE_FORMAT_TOML, content=content)

    imported = await plane.call(request)

    changed = [change.after.percent for change in imported.changes if change.after.endpoint == "vertex-relay"]
    listed = (await plane.call(prices_pb2.ListPricesRequest(page_size=2))).prices
    at = prices_pb2.ListPricesRequest(page_size=1)
    at.effective_at.FromJsonString("2026-12-24T00:00:00Z")
    assert changed == ["7.5", "0"]
    assert [(price.endpoint, price.model, price.sku, price.percent) for price in listed] == [
        ("vertex-relay", "", "relay_surcharge", "7.5"),
        ("vertex-relay", "", "relay_surcharge", "0"),
    ]
    assert (listed[0].amount.nanos, listed[0].per_units, listed[0].unit) == (75_000, 1_000_000, "nanos")
    assert listed[0].end_time == listed[1].effective_time
    assert [price.percent for price in (await plane.call(at)).prices] == ["0"]


@pytest.mark.parametrize("selector", ["tiers/prooo", "models/gemini-9-nope", "tiers/auto", "models/pro"])
async def test_a_limit_on_what_is_not_in_the_catalogue_is_refused(plane: Plane, selector: str) -> None:
    """It would never bind, and nobody would see that."""
    await plane.tenant("acme")
    await package(plane, packaged_catalogue())
    limit = _budget(selector=selector)

    with pytest.raises(InvalidRequest, match="none of the catalogue's"):
        await plane.call(limits_pb2.CreateLimitRequest(parent="tenants/acme", limit_id="cap", limit=limit))


@pytest.mark.parametrize("selector", ["", "tiers/pro", "models/gemini-2.5-pro"])
async def test_a_limit_may_be_on_a_tier_or_a_model_of_the_catalogue(plane: Plane, selector: str) -> None:
    """Or on neither: then all calls count."""
    await plane.tenant("acme")
    await package(plane, packaged_catalogue())
    limit = _budget(selector=selector)

    made = await plane.call(limits_pb2.CreateLimitRequest(parent="tenants/acme", limit_id="cap", limit=limit))

    assert made.selector == selector


async def test_an_account_reaches_only_addresses_of_the_settings(plane: Plane) -> None:
    """Nobody sends keys to a host of his own; the default is taken where none is named."""
    account = accounts_pb2.Account(endpoint="https://evil.example")

    with pytest.raises(InvalidRequest):
        await plane.call(accounts_pb2.CreateAccountRequest(account_id="evil", account=account))

    created = await plane.call(accounts_pb2.CreateAccountRequest(account_id="main"))
    disabled = await plane.call(accounts_pb2.DisableAccountRequest(name="accounts/main", etag=created.etag))
    assert (created.endpoint, disabled.state) == ("gemini_api", accounts_pb2.Account.STATE_DISABLED)
    with pytest.raises(EtagMismatch):
        await plane.call(accounts_pb2.EnableAccountRequest(name="accounts/main", etag=created.etag))


async def test_an_upstream_key_goes_to_vault_and_nowhere_else(plane: Plane, openbao: TestOpenBao) -> None:
    """The secret is in Vault, its fingerprint in PostgreSQL, and neither in the trail; a dry run writes nothing."""
    custodian = VaultClient(VaultAddress(url=openbao.endpoint.address), openbao.endpoint.key_custodian)
    plane.hold_keys(custodian)
    await plane.call(accounts_pb2.CreateAccountRequest(account_id="main"))
    request = upstream_keys_pb2.AddUpstreamKeyRequest(parent="accounts/main", upstream_key_id="first", secret=SECRET)
    request.validate_only = True
    dry = await plane.call(request)
    with pytest.raises(SecretMissing):
        await custodian.read_secret("upstream-keys/main/first")

    request.validate_only = False
    added = await plane.call(request)

    held = await custodian.read_secret("upstream-keys/main/first")
    assert (held["key"], held.version) == (SECRET, added.vault_version)
    assert (dry.name, dry.fingerprint) == (added.name, added.fingerprint)
    async with plane.database.transaction() as session:
        events = await list_events(session, "platform")
    assert not any(SECRET in str(event.model_dump()) for event in events)
    with pytest.raises(ResourceExists):
        await plane.call(request)
    with pytest.raises(ResourceInUse):
        await plane.call(accounts_pb2.DeleteAccountRequest(name="accounts/main"))
    await plane.call(upstream_keys_pb2.DeleteUpstreamKeyRequest(name=added.name))
    with pytest.raises(SecretMissing):
        await custodian.read_secret("upstream-keys/main/first")
    await plane.call(accounts_pb2.DeleteAccountRequest(name="accounts/main"))
    await custodian.close()


@pytest.mark.parametrize("validate_only", [True, False])
async def test_an_upstream_key_that_cannot_be_sent_is_refused(
    plane: Plane, openbao: TestOpenBao, validate_only: bool
) -> None:
    """Before it is written anywhere, and without a word of it in the error."""
    custodian = VaultClient(VaultAddress(url=openbao.endpoint.address), openbao.endpoint.key_custodian)
    plane.hold_keys(custodian)
    await plane.call(accounts_pb2.CreateAccountRequest(account_id="main"))
    request = upstream_keys_pb2.AddUpstreamKeyRequest(
        parent="accounts/main", upstream_key_id="two", secret=f"{SECRET}\n{SECRET}", validate_only=validate_only
    )

    with pytest.raises(InvalidRequest) as refused:
        await plane.call(request)

    assert [one.path for one in refused.value.violations] == ["secret"]
    assert SECRET not in refused.value.message()
    with pytest.raises(SecretMissing):
        await custodian.read_secret("upstream-keys/main/two")
    await custodian.close()


async def test_a_secret_left_by_a_failed_attempt_is_written_over(plane: Plane, openbao: TestOpenBao) -> None:
    """What Vault kept of an attempt that did not commit does not stand in the way of the next."""
    custodian = VaultClient(VaultAddress(url=openbao.endpoint.address), openbao.endpoint.key_custodian)
    plane.hold_keys(custodian)
    await custodian.write_secret("upstream-keys/other/first", {"key": "left over"}, cas=0)
    await plane.call(accounts_pb2.CreateAccountRequest(account_id="other"))

    added = await plane.call(
        upstream_keys_pb2.AddUpstreamKeyRequest(parent="accounts/other", upstream_key_id="first", secret=SECRET)
    )

    held = await custodian.read_secret("upstream-keys/other/first")
    assert (held["key"], held.version, added.vault_version) == (SECRET, 2, 2)
    await custodian.close()
