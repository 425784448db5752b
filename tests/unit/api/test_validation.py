"""The rules of generation calls that are written out say what the protos say."""

import asyncio
from uuid import uuid4

import protovalidate
import pytest
from google.protobuf.message import Message
from tollhouse.admin.v1 import limits_pb2, shared_costs_pb2, tenants_pb2
from tollhouse.v1 import content_pb2 as c
from tollhouse.v1 import generation_pb2 as g
from tollhouse_server.api.validation import RequestValidator
from tollhouse_server.errors import InvalidRequest

CONTENT = c.Content(role="user", parts=[c.Part(text="x")])
PARENT = "tenants/acme/departments/research/projects/labels"


def generate(**fields: object) -> g.GenerateContentRequest:
    """Build a valid request, changed by `fields`."""
    return g.GenerateContentRequest(**({"tier": "flash", "contents": [CONTENT]} | fields))  # type: ignore[arg-type]


def embed(count: int) -> g.EmbedContentRequest:
    """Build a request of `count` contents."""
    return g.EmbedContentRequest(tier="embedding", requests=[g.EmbedContentItem(content=CONTENT)] * count)


CASES: dict[str, Message] = {
    "valid": generate(),
    "valid with everything": generate(parent=PARENT, request_id=str(uuid4()), labels={"team": "a" * 128}),
    "neither tier nor model": g.GenerateContentRequest(contents=[CONTENT]),
    "tier and model": generate(model="gemini-3.5-flash"),
    "bad tier": generate(tier="Flash!"),
    "tier too long": generate(tier="a" * 64),
    "bad model": g.GenerateContentRequest(model="models/x", contents=[CONTENT]),
    "no contents": generate(contents=[]),
    "too many contents": generate(contents=[CONTENT] * 10_001),
    "too many tools": generate(tools=[c.Tool()] * 129),
    "too many safety settings": generate(safety_settings=[c.SafetySetting()] * 33),
    "empty cached content": generate(cached_content=""),
    "long cached content": generate(cached_content="c" * 257),
    "bad parent": generate(parent="tenants/acme"),
    "bad request id": generate(request_id="1234"),
    "empty request id": generate(request_id=""),
    "too many labels": generate(labels={f"l{n}": "x" for n in range(17)}),
    "bad label name": generate(labels={"Team": "x"}),
    "long label value": generate(labels={"team": "x" * 129}),
    "empty region": generate(routing=g.RoutingOptions(region="")),
    "long region": generate(routing=g.RoutingOptions(region="r" * 64)),
    "too many exact values": generate(exact_values=[g.ExactValue(pointer="/a", json="1")] * 1001),
    "long pointer": generate(exact_values=[g.ExactValue(pointer="/" * 8193, json="1")]),
    "valid count": g.CountTokensRequest(tier="flash", contents=[CONTENT]),
    "count without contents": g.CountTokensRequest(tier="flash"),
    "valid embedding": embed(250),
    "no embedding": embed(0),
    "too many embeddings": embed(251),
}


@pytest.mark.parametrize("case", CASES)
def test_written_out_rules_agree_with_the_protos(case: str) -> None:
    """Both accept, or both refuse."""
    request = CASES[case]
    by_protos = protovalidate.collect_violations(request)

    try:
        RequestValidator().check(request)
        refused = False
    except InvalidRequest:
        refused = True

    assert refused == bool(by_protos), [violation.proto.message for violation in by_protos]


def test_other_requests_are_held_to_their_protos_field_by_field() -> None:
    """An administrator is told which field is wrong."""
    with pytest.raises(InvalidRequest) as raised:
        RequestValidator().check(limits_pb2.CreateLimitRequest(parent="nonsense"))

    assert "parent" in {violation.path for violation in raised.value.violations}


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (generate(labels={"team": "a\0b"}), "labels[team]"),
        (tenants_pb2.CreateTenantRequest(tenant=tenants_pb2.Tenant(display_name="A\0cme")), "display_name"),
    ],
)
def test_a_text_that_the_database_cannot_keep_is_refused(request_: Message, path: str) -> None:
    """A NUL in a label would spoil the tick that it rides in."""
    with pytest.raises(InvalidRequest) as raised:
        RequestValidator().check(request_)

    assert path in {violation.path for violation in raised.value.violations if "NUL" in violation.description}


def shares(count: int) -> shared_costs_pb2.CreateSharedCostRequest:
    """Build a valid request about a cost that so many departments share."""
    asked = shared_costs_pb2.SharedCost(display_name="Gateway", reason="its servers")
    for number in range(count):
        asked.departments.add(department=f"tenants/acme/departments/d{number}", share=1)
    return shared_costs_pb2.CreateSharedCostRequest(parent="tenants/acme", shared_cost=asked)


def test_a_list_that_is_too_long_is_refused_without_a_look_at_its_items() -> None:
    """At milliseconds an item a million would stop a worker for hours."""
    with pytest.raises(InvalidRequest, match="departments: has 100000 items; at most 500 are allowed") as refusal:
        RequestValidator().check(shares(100_000))

    assert len(refusal.value.violations) == 1


async def test_others_are_served_while_a_long_request_is_looked_at() -> None:
    """Rules are evaluated in Python, which takes hundreds of milliseconds for a hundred items."""
    looking = asyncio.create_task(RequestValidator().check_beside_others(shares(100)))
    turns = 0

    while not looking.done():
        await asyncio.sleep(0.001)
        turns += 1

    assert looking.exception() is None
    assert turns > 10
