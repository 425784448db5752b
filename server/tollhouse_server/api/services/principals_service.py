"""PrincipalService: the people and services that act."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import principals_pb2 as pb

from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.access.granting import Granting
from tollhouse_server.access.group_store import leave_all_groups
from tollhouse_server.access.store import delete_grant, grants_of
from tollhouse_server.api.call import Call
from tollhouse_server.api.masks import changed_fields
from tollhouse_server.api.mutation import Change, MutationRequest, Mutations
from tollhouse_server.api.owners import state_wanted
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.values import etag, timestamp, version_of
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic
from tollhouse_server.database.rows import change, check_version
from tollhouse_server.names import PrincipalName, TenantName, invalid
from tollhouse_server.tenancy import store
from tollhouse_server.tenancy.tables import PrincipalRow

_IDENTITY: Final = ("email", "issuer", "subject")
_EMAIL: Final = re.compile(r"[^\s@]{1,64}@[^\s@]+\.?[^\s@]+")
# An issuer on loopback is one that is being tried out.
_ISSUER: Final = re.compile(r"(?:https://|http://(?:localhost|127\.0\.0\.1)(?=[:/]|$))[^\s?#]*")


class PrincipalService:
    """Creates, reads, changes, disables, enables and deletes principals."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens, authorizer: Authorizer) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._granting = Granting(authorizer)

    async def create_principal(self, request: pb.CreatePrincipalRequest, call: Call) -> pb.Principal:
        row = new_principal(request)

        async def act(session: AsyncSession) -> Change[pb.Principal]:
            after = principal_message(await store.create_principal(session, row))
            return Change(resource=after.name, before=None, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Principal, act)

    async def get_principal(self, request: pb.GetPrincipalRequest, call: Call) -> pb.Principal:
        async with self._database.within(call.domain) as session:
            return principal_message(await store.get_principal(session, PrincipalName.parse(request.name)))

    async def list_principals(self, request: pb.ListPrincipalsRequest, call: Call) -> pb.ListPrincipalsResponse:
        async with self._database.within(call.domain) as session:
            rows = await store.list_principals(
                session,
                TenantName.parse(request.parent, "parent").tenant,
                after=self._pages.after(request),
                size=self._pages.size(request) + 1,
                to=store.Narrowing(
                    show_deleted=request.show_deleted,
                    state=state_wanted(pb.Principal.State.Name(request.state)),
                    kind=pb.Principal.Kind.Name(request.kind).removeprefix("KIND_") if request.kind else None,
                    email=request.email or None,
                ),
            )
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, last.principal_id) if last else ""
        return pb.ListPrincipalsResponse(principals=map(principal_message, page), next_page_token=token)

    async def update_principal(self, request: pb.UpdatePrincipalRequest, call: Call) -> pb.Principal:
        fields = changed_fields(request.principal, request.update_mask, ("display_name", *_IDENTITY))
        values = {field: getattr(request.principal, field) for field in fields}
        # By its subject a person is let in: who had the old one is out, as after a revocation.
        topics = (Topic.IDENTITY,) if fields & {"issuer", "subject"} else ()
        return await self._change(call, request, request.principal.name, request.principal.etag, values, *topics)

    async def disable_principal(self, request: pb.DisablePrincipalRequest, call: Call) -> pb.Principal:
        return await self._change(call, request, request.name, request.etag, {"state": "DISABLED"}, Topic.IDENTITY)

    async def enable_principal(self, request: pb.EnablePrincipalRequest, call: Call) -> pb.Principal:
        return await self._change(call, request, request.name, request.etag, {"state": "ACTIVE"}, Topic.IDENTITY)

    async def delete_principal(self, request: pb.DeletePrincipalRequest, call: Call) -> pb.Principal:
        values = {"state": "DELETED", "deleted_at": datetime.now(UTC)}
        return await self._change(call, request, request.name, request.etag, values, Topic.IDENTITY, Topic.ACCESS)

    async def _change(
        self, call: Call, request: MutationRequest, text: str, tag: str, values: dict[str, object], *topics: Topic
    ) -> pb.Principal:
        name = PrincipalName.parse(text)

        async def act(session: AsyncSession) -> Change[pb.Principal]:
            row = await store.active_principal(session, name)
            check_version(row, version_of(tag, text), text)
            before = principal_message(row)
            if values.keys() & set(_IDENTITY):
                who = {field: str(values.get(field, getattr(row, field))) for field in _IDENTITY}
                checked_identity(row.kind, who)
                if who["subject"] and (who["issuer"], who["subject"]) != (row.issuer, row.subject):
                    # Whoever has this subject acts as him from now on.
                    await self._granting.check_credential(session, call.principal, name, None)
            with store.unique_principal(name.tenant, name.principal):
                after = principal_message(await change(session, row, **values))
            if row.deleted_at is not None:
                for grant in await grants_of(session, name.tenant, name.principal):
                    await delete_grant(session, grant)
                await leave_all_groups(session, name)
            return Change(resource=text, before=before, after=after, answer=after)

        return await self._mutations.run(call, request, pb.Principal, act, *topics)


def new_principal(request: pb.CreatePrincipalRequest) -> PrincipalRow:
    """Return the principal that a request asks for.

    Raises:
        InvalidRequest: it has no kind, or a field does not go with it.
    """
    wanted = request.principal
    name = PrincipalName.parse(f"{request.parent}/principals/{request.principal_id}", "principal_id")
    if wanted.kind == pb.Principal.KIND_UNSPECIFIED:
        raise invalid("principal.kind", "must be KIND_USER or KIND_SERVICE_ACCOUNT")
    kind = pb.Principal.Kind.Name(wanted.kind).removeprefix("KIND_")
    who = checked_identity(kind, {field: getattr(wanted, field) for field in _IDENTITY})
    return PrincipalRow(
        tenant_id=name.tenant,
        principal_id=name.principal,
        kind=kind,
        display_name=wanted.display_name,
        email=who["email"],
        issuer=who["issuer"],
        subject=who["subject"],
    )


def checked_identity(kind: str, who: Mapping[str, str]) -> dict[str, str]:
    """Return e-mail address, issuer and subject if they go together and with the kind of a principal.

    Raises:
        InvalidRequest: they do not.
    """
    email, issuer, subject = who["email"], who["issuer"], who["subject"]
    if email and not _EMAIL.fullmatch(email):
        raise invalid("principal.email", "must be an e-mail address")
    if email and kind != "USER":
        raise invalid("principal.email", "is for a KIND_USER only")
    if bool(issuer) != bool(subject):
        raise invalid("principal.subject", "must be set together with issuer")
    if issuer and not _ISSUER.fullmatch(issuer):
        raise invalid("principal.issuer", "must be an https URL without query and fragment")
    return dict(who)


def principal_message(row: PrincipalRow) -> pb.Principal:
    """Return a principal as callers see it."""
    return pb.Principal(
        name=str(PrincipalName(row.tenant_id, row.principal_id)),
        display_name=row.display_name,
        kind=pb.Principal.Kind.Value(f"KIND_{row.kind}"),
        state=pb.Principal.State.Value(f"STATE_{row.state}"),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        delete_time=timestamp(row.deleted_at),
        email=row.email,
        issuer=row.issuer,
        subject=row.subject,
        etag=etag(row.version),
    )
