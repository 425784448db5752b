"""Price files and people for the tests of the price book."""

from typing import Any

from tollhouse.admin.v1 import prices_pb2 as pb
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.services.prices_service import PriceService
from tollhouse_server.names import PLATFORM

from tests.integration.admin.plane import Plane

MODEL = "gemini-x"
TOML = pb.PRICE_FILE_FORMAT_TOML


def file_of(dollars: str, *, since: str = "2026-01-01", model: str = MODEL, more: str = "") -> str:
    """A price file with one list: input and output at one price."""
    return (
        f'note = "contract"\n[[prices]]\nmodel = "{model}"\neffective_from = {since}\nsource = "contract"\n'
        f'input = "{dollars}"\noutput = "{dollars}"\n{more}'
    )


def importing(content: str, **fields: Any) -> pb.ImportPricesRequest:
    """Ask for the import of a file."""
    return pb.ImportPricesRequest(format=TOML, content=content, **fields)


def proposing(content: str, **fields: Any) -> pb.ProposePricesRequest:
    """Propose a file."""
    return pb.ProposePricesRequest(format=TOML, content=content, **fields)


def step(verb: str, name: str, **fields: Any) -> Any:
    """Ask for a step with a proposal."""
    return getattr(pb, f"{verb.capitalize()}PriceProposalRequest")(name=name, **fields)


async def keeper(plane: Plane, name: str) -> str:
    """Make somebody on the platform who keeps prices, and return his key."""
    return await plane.key(PLATFORM, name, ("price-keeper", PLATFORM))


async def input_cents(plane: Plane, **asked: Any) -> list[int]:
    """Return what a million tokens of text cost, in cents, in the order of their dates."""
    answer = await plane.call(pb.ListPricesRequest(model=MODEL, **asked))
    cents = [one.amount.units * 100 + one.amount.nanos // 10**7 for one in answer.prices if one.sku == "input_text"]
    return [one * 1_000_000 // answer.prices[0].per_units for one in cents]


def demand_second_person(plane: Plane) -> None:
    """Serve imports as a deployment does that demands a second person."""
    plane.handlers["PriceService"] = PriceService(
        plane.database, Mutations(plane.database, b"f"), PageTokens(b"p"), needs_second_person=True
    )
