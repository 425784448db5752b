"""ModelService: the models of the catalogue, their other names, and whole catalogues as files."""

from google.protobuf.empty_pb2 import Empty
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import models_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.model_messages import (
    ALIAS_CHANGEABLE,
    CHANGEABLE,
    alias_message,
    alias_values,
    change_message,
    model_message,
    model_values,
    named_as_in,
    origin_of,
)
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.names import AliasName, ModelName
from tollhouse_server.routing import catalogue_store
from tollhouse_server.routing import model_store as store
from tollhouse_server.routing.catalogue_file import AliasEntry, ModelEntry, checked
from tollhouse_server.routing.catalogue_import import etag_of
from tollhouse_server.routing.catalogue_text import catalogue_toml
from tollhouse_server.routing.tables import ModelRow


class ModelService:
    """Creates, reads, changes and deletes models and aliases; imports catalogues."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    # --- models -------------------------------------------------------------------------------------------------------

    async def create_model(self, request: pb.CreateModelRequest, call: Call) -> pb.Model:
        with named_as_in("model"):
            values = model_values(request.model, CHANGEABLE) | {"model": request.model_id}
            entry = checked(ModelEntry, values | {"display_name": request.model.display_name or request.model_id})

        async def act(session: AsyncSession) -> Change[pb.Model]:
            with named_as_in("model"):
                after = model_message(await store.create_model(session, entry), ())
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Model, act)

    async def get_model(self, request: pb.GetModelRequest, call: Call) -> pb.Model:
        async with self._database.within(call.domain) as session:
            return await _read(session, await store.get_model(session, ModelName.parse(request.name).model))

    async def list_models(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        after, size = self._pages.after(request), self._pages.size(request) + 1
        async with self._database.within(call.domain) as session:
            rows = await store.list_models(session, after=after, size=size, origin=origin_of(request.origin))
            page, last = self._pages.split(request, rows)
            aliases = await store.aliases_of(session, [row.model for row in page])
        token = self._pages.next(request, last.model) if last else ""
        models = [model_message(row, aliases.get(row.model, ())) for row in page]
        return pb.ListModelsResponse(models=models, next_page_token=token)

    async def update_model(self, request: pb.UpdateModelRequest, call: Call) -> pb.Model:
        name = ModelName.parse(request.model.name, "model.name")
        fields = changed_fields(request.model, request.update_mask, CHANGEABLE)
        values = model_values(request.model, sorted(fields))
        version = version_of(request.model.etag, str(name))

        async def act(session: AsyncSession) -> Change[pb.Model]:
            before = await _read(session, await store.get_model(session, name.model))
            with named_as_in("model"):
                row = await store.update_model(session, name.model, values, version=version)
            after = await _read(session, row)
            return Change(resource=after.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Model, act)

    async def delete_model(self, request: pb.DeleteModelRequest, call: Call) -> Empty:
        model = ModelName.parse(request.name).model
        version = version_of(request.etag, request.name)

        async def act(session: AsyncSession) -> Change[Empty]:
            before = await _read(session, await store.get_model(session, model))
            await store.delete_model(session, model, version=version)
            return Change(resource=request.name, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act)

    # --- aliases ------------------------------------------------------------------------------------------------------

    async def create_alias(self, request: pb.CreateAliasRequest, call: Call) -> pb.ModelAlias:
        values = alias_values(request.alias, ALIAS_CHANGEABLE)
        entry = checked(AliasEntry, {"alias": request.alias_id, "shutdown_at": values["shutdown_at"]})

        async def act(session: AsyncSession) -> Change[pb.ModelAlias]:
            after = alias_message(await store.create_alias(session, entry, model=values["model"]))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.ModelAlias, act)

    async def get_alias(self, request: pb.GetAliasRequest, call: Call) -> pb.ModelAlias:
        async with self._database.within(call.domain) as session:
            return alias_message(await store.get_alias(session, AliasName.parse(request.name).alias))

    async def update_alias(self, request: pb.UpdateAliasRequest, call: Call) -> pb.ModelAlias:
        name = AliasName.parse(request.alias.name, "alias.name")
        values = alias_values(request.alias, changed_fields(request.alias, request.update_mask, ALIAS_CHANGEABLE))
        version = version_of(request.alias.etag, str(name))

        async def act(session: AsyncSession) -> Change[pb.ModelAlias]:
            before = alias_message(await store.get_alias(session, name.alias))
            after = alias_message(await store.update_alias(session, name.alias, values, version=version))
            return Change(resource=after.name, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.ModelAlias, act)

    async def delete_alias(self, request: pb.DeleteAliasRequest, call: Call) -> Empty:
        alias = AliasName.parse(request.name).alias
        version = version_of(request.etag, request.name)

        async def act(session: AsyncSession) -> Change[Empty]:
            before = alias_message(await store.get_alias(session, alias))
            await store.delete_alias(session, alias, version=version)
            return Change(resource=request.name, before=before, after=None, answer=Empty())

        return await self._mutations.run(call, request, Empty, act)

    # --- files --------------------------------------------------------------------------------------------------------

    async def import_catalogue(self, request: pb.ImportCatalogueRequest, call: Call) -> pb.ImportCatalogueResponse:
        async def act(session: AsyncSession) -> Change[pb.ImportCatalogueResponse]:
            found, etag = await catalogue_store.import_catalogue(session, request.content, etag=request.etag)
            answer = pb.ImportCatalogueResponse(
                changes=map(change_message, found.changes), unchanged_count=found.unchanged_count, etag=etag
            )
            # The changes have both sides of every field: they are the trail.
            return Change(resource=catalogue_store.CATALOGUE, before=None, after=answer, answer=answer)

        return await self._mutations.run(call, request, pb.ImportCatalogueResponse, act)

    async def get_catalogue_file(self, request: pb.GetCatalogueFileRequest, call: Call) -> pb.CatalogueFile:
        async with self._database.within(call.domain) as session:
            catalogue = await catalogue_store.current_catalogue(session)
        return pb.CatalogueFile(content=catalogue_toml(catalogue), etag=etag_of(catalogue))


async def _read(session: AsyncSession, row: ModelRow) -> pb.Model:
    aliases = await store.aliases_of(session, [row.model])
    return model_message(row, aliases.get(row.model, ()))
