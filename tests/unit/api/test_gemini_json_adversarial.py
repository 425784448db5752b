"""The mapping survives hostile and exotic JSON: identical, or a ValueError, never anything else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tollhouse.v1 import content_pb2, generation_pb2
from tollhouse_server.api.gemini_json import Mapper

KNOWN = sorted(
    {field.json_name for message in content_pb2.DESCRIPTOR.message_types_by_name.values() for field in message.fields}
    | {"contents", "tools", "candidates", "usageMetadata", "outcome", "parent", "tier", "exactValues"}
)
NAMES = st.sampled_from(KNOWN) | st.text(max_size=8)
TEXTS = st.text(max_size=12) | st.sampled_from(["aGVsbG8=", "aGVsbG8", "", "STOP"])
NUMBERS = st.integers(-(2**70), 2**70) | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=25,
)
ROOTS = [generation_pb2.GenerateContentRequest, generation_pb2.GenerateContentResponse]


def over_the_wire(body: dict[str, Any], message_type: Any) -> dict[str, Any]:
    mapper = Mapper()
    wire = mapper.to_message(body, message_type).SerializeToString()
    return mapper.to_json(message_type.FromString(wire))


def typed(value: Any) -> Any:
    """Make booleans differ from numbers, which Python's equality does not."""
    if isinstance(value, dict):
        return {name: typed(member) for name, member in value.items()}
    if isinstance(value, list):
        return [typed(element) for element in value]
    return ("bool", value) if isinstance(value, bool) else value


def shaped(name: str) -> st.SearchStrategy[Any]:
    """JSON near the schema: known members hold objects with known members, as often as not."""
    message = content_pb2.DESCRIPTOR.message_types_by_name[name]
    members = {field.json_name: JSON for field in message.fields}
    return st.fixed_dictionaries({}, optional=members)


@settings(max_examples=150, deadline=None)
@given(body=st.dictionaries(NAMES, JSON, max_size=6), message_type=st.sampled_from(ROOTS))
def test_arbitrary_json_objects_survive(body: dict[str, Any], message_type: Any) -> None:
    """Known names, unknown names, any type, integers of any size: what goes in comes out."""
    mapped = over_the_wire(body, message_type)

    assert typed(mapped) == typed(body)


@settings(max_examples=150, deadline=None)
@given(candidate=shaped("Candidate"), part=shaped("Part"), schema=shaped("Schema"))
def test_known_members_of_any_type_survive(candidate: Any, part: Any, schema: Any) -> None:
    """A member that Google changes the type of is carried on, not dropped."""
    tools = [{"functionDeclarations": [{"parameters": {"properties": {"a": schema}}}]}]
    body = {"candidates": [candidate], "contents": [{"parts": [part]}], "tools": tools}

    for message_type in ROOTS:
        assert typed(over_the_wire(body, message_type)) == typed(body)


def nested(levels: int, *, lists: bool = False) -> Any:
    value: Any = 2**60 + 1
    for _ in range(levels):
        value = [value] if lists else {"a": value}
    return value


@pytest.mark.parametrize("levels", [1, 28, 29, 30, 31, 32, 33, 34, 50, 99])
@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("member", ["unknown", "contents"])
def test_nesting_up_to_100_levels_survives(levels: int, lists: bool, member: str) -> None:
    """protobuf parsers stop at 100 nested messages; what lies deeper travels as JSON text."""
    body = {member: nested(levels, lists=lists)}

    mapped = over_the_wire(body, generation_pb2.GenerateContentRequest)

    assert mapped == body


@pytest.mark.parametrize("levels", [25, 40, 90])
def test_deep_schemas_survive(levels: int) -> None:
    """Typed messages nest in themselves as well, and cost levels as Structs do."""
    schema: dict[str, Any] = {"type": "STRING"}
    for _ in range(levels):
        schema = {"items": schema}
    body = {"tools": [{"functionDeclarations": [{"parameters": schema}]}]}

    mapped = over_the_wire(body, generation_pb2.GenerateContentRequest)

    assert mapped == body


@pytest.mark.parametrize("levels", [100, 101, 500, 100_000])
def test_nesting_beyond_100_levels_is_refused(levels: int) -> None:
    """The refusal is a ValueError, not an exhausted stack."""
    body = {"unknown": nested(levels)}

    with pytest.raises(ValueError, match="100 levels"):
        Mapper().to_message(body, generation_pb2.GenerateContentRequest)


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**63 + 1, 10**30, 10**400])
def test_integers_that_no_double_holds_survive(number: int) -> None:
    """Snowflake identifiers in function arguments stay what they are."""
    parts = [{"functionCall": {"name": "f", "args": {"id/~": [number, number + 2]}}}]
    body = {"candidates": [{"content": {"parts": parts}, "index": number}]}

    mapped = over_the_wire(body, generation_pb2.GenerateContentResponse)

    assert mapped == body


@pytest.mark.parametrize(
    "body",
    [
        {"modelVersion": "\ud800"},
        {"unknown": "\ud800"},
        {"\ud800": 1},
        {"candidates": [{"avgLogprobs": float("nan")}]},
        {"candidates": [{"logprobsResult": {"logProbabilitySum": float("inf")}}]},
        {"unknown": float("nan")},
        {"unknown": {1, 2}},
    ],
)
def test_what_is_not_json_is_refused(body: dict[str, Any]) -> None:
    """Lone surrogates, NaN, infinity and foreign types have no place in JSON."""
    with pytest.raises(ValueError):
        Mapper().to_message(body, generation_pb2.GenerateContentResponse)


@pytest.mark.parametrize("body", [[], None, "text", 5])
def test_a_body_that_is_no_object_is_refused(body: Any) -> None:
    """A message can only be an object."""
    with pytest.raises(ValueError, match="not a JSON object"):
        Mapper().to_message(body, generation_pb2.GenerateContentResponse)


@pytest.mark.parametrize(
    ("pointer", "text"),
    [
        ("", "1"),
        ("/cachedContent", "9007199254740993"),
        ("/missing", "null"),
        ("/contents/7", "null"),
        ("/contents/x", "null"),
        ("/deep", "NaN"),
        ("/deep", "[" * 50_000),
        ("/deep", "[" * 200 + "]" * 200),
        ("/deep", "no json"),
        ("/" * 200, "null"),
        ("/contents/" + "9" * 5000, "null"),
    ],
)
def test_a_forged_exact_value_is_refused(pointer: str, text: str) -> None:
    """Only a stand-in can be replaced, so that exact values cannot smuggle anything past typed fields."""
    request = generation_pb2.GenerateContentRequest(contents=[content_pb2.Content()], cached_content="cachedContents/x")
    request.extra.fields["deep"].null_value = 0  # type: ignore[assignment]
    request.exact_values.add(pointer=pointer, json=text)

    with pytest.raises(ValueError):
        Mapper().to_json(request)
