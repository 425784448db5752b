"""The catalogue as tests of its administration change and read it."""

from datetime import UTC, datetime
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import text
from tollhouse.admin.v1 import models_pb2 as pb
from tollhouse.v1 import catalog_pb2 as v1
from tollhouse.v1 import generation_pb2 as g
from tollhouse_server.routing import store
from tollhouse_server.routing.addresses import Addresses
from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.routing.catalogue_file import CatalogueFile
from tollhouse_server.routing.live import LiveCatalogue

from tests.integration.admin.plane import Plane

OWN = "models/smollm2"
SUNSET = datetime(2027, 3, 1, tzinfo=UTC)


def own_model(**fields: Any) -> pb.Model:
    values = {
        "upstreams": [g.UPSTREAM_KIND_OPENAI_COMPATIBLE],
        "capabilities": [v1.CAPABILITY_GENERATE_CONTENT],
        "input_token_limit": 8192,
        "output_token_limit": 2048,
        "source": "own machine",
    }
    return pb.Model(**{**values, **fields})


async def add(plane: Plane, model_id: str = "smollm2", **fields: Any) -> pb.Model:
    created: pb.Model = await plane.call(pb.CreateModelRequest(model_id=model_id, model=own_model(**fields)))
    return created


async def update(plane: Plane, name: str, *mask: str, **fields: Any) -> pb.Model:
    request = pb.UpdateModelRequest(model=pb.Model(name=name, **fields), update_mask=FieldMask(paths=mask))
    changed: pb.Model = await plane.call(request)
    return changed


async def add_alias(plane: Plane, alias: str, model: str) -> pb.ModelAlias:
    request = pb.CreateAliasRequest(alias_id=alias, alias=pb.ModelAlias(model=model))
    created: pb.ModelAlias = await plane.call(request)
    return created


async def read(plane: Plane, name: str) -> pb.Model:
    found: pb.Model = await plane.call(pb.GetModelRequest(name=name))
    return found


async def catalogue(plane: Plane) -> Catalogue:
    live = LiveCatalogue(plane.database, Addresses(base_urls={}))
    await live.reload()
    return live.current


async def package(plane: Plane, newer: CatalogueFile) -> None:
    """Start a later release on the database."""
    async with plane.database.transaction() as session:
        await store.seeded_revision(session)
        await store.store_catalogue(session, newer.model_copy(update={"revision": 99}))


def moment(at: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


async def epoch(plane: Plane) -> int:
    async with plane.database.transaction() as session:
        query = text("SELECT value FROM epoch WHERE topic = 'catalogue'")
        return int((await (await session.connection()).execute(query)).scalar_one())


async def trail(plane: Plane, resource: str) -> Any:
    async with plane.database.transaction() as session:
        query = text("SELECT method, before, after FROM audit_event WHERE resource = :name ORDER BY event_id")
        return (await (await session.connection()).execute(query, {"name": resource})).all()
