"""Money, versions and masks on the wire."""

from datetime import UTC, datetime, tzinfo
from itertools import pairwise

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money
from hypothesis import given
from hypothesis import strategies as st
from tollhouse.admin.v1.tenants_pb2 import Tenant
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.price_notations import yaml_as_json
from tollhouse_server.api.values import etag, moment_of, money, nanos_of, timestamp, version_of
from tollhouse_server.errors import EtagMismatch, InvalidRequest, PriceFileInvalid
from tollhouse_server.money import MAX_NANOS


@given(st.integers(min_value=-MAX_NANOS, max_value=MAX_NANOS))
def test_money_survives_the_wire(nanos: int) -> None:
    """Every amount that PostgreSQL holds comes back to the nano-dollar."""
    assert nanos_of(money(nanos), "amount") == nanos


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)), st.timezones())
def test_moment_survives_the_wire(moment: datetime, zone: tzinfo) -> None:
    """A moment in any time zone is the one that protobuf itself makes of it, before 1970 too."""
    aware, expected = moment.replace(tzinfo=zone), Timestamp()
    expected.FromDatetime(aware)

    assert timestamp(aware) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        Money(currency_code="EUR", units=1),
        Money(units=1, nanos=-1),
        Money(nanos=1_000_000_000),
        Money(units=10_000_000_000),
    ],
)
def test_money_that_is_not_an_amount_of_dollars_is_refused(wrong: Money) -> None:
    """Nothing is converted, normalised or cut."""
    with pytest.raises(InvalidRequest):
        nanos_of(wrong, "amount")


@pytest.mark.parametrize("seconds", [-62135596800, 253402300799, 253402300800, 2**63 - 1])
def test_moments_at_the_ends_of_the_calendar_are_refused(seconds: int) -> None:
    """The last one would be kept as infinity, and come back without a time zone: nobody could read the wallet."""
    with pytest.raises(InvalidRequest):
        moment_of(Timestamp(seconds=seconds, nanos=999_999_999), "top_up.expire_time")

    assert moment_of(Timestamp(seconds=1), "top_up.expire_time") == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


def test_an_etag_is_a_version_and_garbage_is_a_mismatch() -> None:
    """Absent means no check; what is not ours matches nothing."""
    assert version_of(etag(7), "x") == 7
    assert version_of("", "x") is None
    for garbage in ("7", "v", "v-1", "vx", "v٣"):
        with pytest.raises(EtagMismatch):
            version_of(garbage, "x")


def test_a_mask_decides_what_changes() -> None:
    """Named fields change even to nothing; without a mask the set ones do; others are refused."""
    tenant = Tenant(display_name="Acme", state=Tenant.STATE_DELETED)

    assert changed_fields(tenant, FieldMask(), ("display_name", "time_zone")) == {"display_name"}
    assert changed_fields(tenant, FieldMask(paths=["time_zone"]), ("display_name", "time_zone")) == {"time_zone"}
    assert changed_fields(tenant, FieldMask(paths=["*"]), ("display_name", "time_zone")) == {
        "display_name",
        "time_zone",
    }
    with pytest.raises(InvalidRequest, match="'state' cannot be changed"):
        changed_fields(tenant, FieldMask(paths=["state"]), ("display_name",))


def test_yaml_keeps_decimals_and_dates_as_they_are_written() -> None:
    """A price never becomes a float on its way in."""
    assert yaml_as_json("a: 0.10\nb: 2026-12-01\nc: 5") == '{"a": "0.10", "b": "2026-12-01", "c": 5}'


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: [", "!!python/object:os.system {}", "? {a: 1}\n: 2"])
def test_yaml_that_is_not_plain_is_refused(text: str) -> None:
    """A key twice, broken syntax, or anything that makes objects."""
    with pytest.raises(PriceFileInvalid):
        yaml_as_json(text)


def test_yaml_whose_aliases_stand_for_millions_of_values_is_refused() -> None:
    """A kilobyte must not become gigabytes, by aliases, by merged mappings or by a list that is within itself."""
    levels = list(pairwise("abcdefghi"))
    lists = "a: &a [x, x]\n" + "".join(f"{to}: &{to} [{', '.join([f'*{of}'] * 9)}]\n" for of, to in levels)
    merged = "a: &a {x: 1}\n" + "".join(f"{to}: &{to} {{<<: [{', '.join([f'*{of}'] * 9)}]}}\n" for of, to in levels)

    for text in (lists, merged, "a: &a [*a]\n"):
        with pytest.raises(PriceFileInvalid, match="aliases stand for more"):
            yaml_as_json(text)

    assert yaml_as_json("a: &a {x: 1}\nb: *a\n") == '{"a": {"x": 1}, "b": {"x": 1}}'


@pytest.mark.parametrize("text", ["a: !!timestamp x", "a: !!bool maybe", "a: !!int x", "a: !!float x", "a: !!binary é"])
def test_yaml_with_a_tag_that_its_word_is_not_is_refused(text: str) -> None:
    """As every other thing that is not YAML."""
    with pytest.raises(PriceFileInvalid, match="not YAML"):
        yaml_as_json(text)
