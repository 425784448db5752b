"""A plan, carried out in one transaction by the acts of the single methods, with the permissions that each needs."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, TypeAlias, TypeVar

from google.protobuf.message import Message
from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import departments_pb2, principals_pb2, projects_pb2
from tollhouse.admin.v1 import trees_pb2 as pb

from tollhouse_server.access.authorizer import Authorizer
from tollhouse_server.api.call import Call
from tollhouse_server.api.methods import snake_case
from tollhouse_server.api.mutation import Act, Change, MutationRequest, Mutations
from tollhouse_server.api.permissions import rule_of_mutation
from tollhouse_server.api.services.departments_service import department_message, new_department
from tollhouse_server.api.services.principals_service import new_principal, principal_message
from tollhouse_server.api.services.projects_service import new_project, project_message
from tollhouse_server.api.trees.entries import Step, place
from tollhouse_server.api.trees.requests import Request, requests_of
from tollhouse_server.database.epochs import Topic, lock
from tollhouse_server.errors import FieldViolation, InvalidRequest
from tollhouse_server.tenancy import bulk_store

Answer = TypeVar("Answer", bound=Message)

Services: TypeAlias = Callable[[Mutations], Mapping[str, Any]]
"""Builds the services whose acts make a tree, by their names, on what runs their changes."""

_TOPICS: Final = (Topic.ACCESS, Topic.CATALOGUE, Topic.IDENTITY, Topic.LIMITS)
"""What an act may announce by itself, in the order in which everyone bumps."""


class OneTransaction(Mutations):
    """Runs the acts of services in a transaction that is open already, and collects what they have done."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self.made: list[tuple[MutationRequest, Change[Any]]] = []
        self.topics: set[Topic] = set()

    async def run(
        self,
        call: Call,  # noqa: ARG002 - as every change is asked for
        request: MutationRequest,
        answer: type[Answer],  # noqa: ARG002
        act: Act[Answer],
        *topics: Topic,
    ) -> Answer:
        """Run `act`; what it has done is recorded with the whole.

        Raises:
            TollhouseError: what `act` raises.
        """
        change = await act(self._session)
        self.made.append((request, change))
        self.topics.update(topics, change.topics)
        return change.answer


class TreeWriter:
    """Makes the steps of one plan; `transaction` has what was done so far."""

    def __init__(self, session: AsyncSession, call: Call, authorizer: Authorizer, services: Services) -> None:
        self._session = session
        self._call = call
        self._authorizer = authorizer
        self.transaction = OneTransaction(session)
        self._services = services(self.transaction)

    async def carry_out(self, steps: Sequence[Step], tenant: str, grants: Mapping[str, str]) -> list[tuple[Step, str]]:
        """Make the steps in their order; return each with the name of what it has changed.

        Raises:
            PermissionDenied: the caller could not make one of the changes by its own method.
            TollhouseError: what a single method would say.
        """
        asked = [(step, requests_of(step, tenant, grants)) for step in steps]
        above = _new_departments(asked)
        for step, requests in asked:
            for request in requests:
                await self._authorize(step, request, above)
        done: list[tuple[Step, str]] = []
        for kind, run in groupby(asked, key=lambda one: _bulk_kind(one[1])):
            group = list(run)
            if kind is not None:
                names = await self._create(kind, tenant, group)
                done += [(step, name) for (step, _), name in zip(group, names, strict=True)]
            else:
                done += [(step, await self._make(step, requests)) for step, requests in group]
        return done

    async def _authorize(self, step: Step, request: Request, above: Mapping[str, str]) -> None:
        rule = rule_of_mutation(request)
        try:
            scope = rule.scope(request, self._call.principal)
        except InvalidRequest as error:
            raise _placed(error, step) from error
        # What is new has no place in the tree of rights yet: what counts is the first above it that has.
        while (nearest := "/".join(scope.split("/")[:4])) in above:
            scope = above[nearest]
        if rule.permission is not None:
            await self._authorizer.authorize(self._call.principal, rule.permission, scope)

    async def _make(self, step: Step, requests: Sequence[Request]) -> str:
        if step.section == pb.TREE_SECTION_LIMITS:
            # Limits announce themselves at once; to lock the topics in another order than others is a deadlock.
            for topic in _TOPICS:
                await lock(self._session, topic)
        first = len(self.transaction.made)
        for request in requests:
            _, service, method = rule_of_mutation(request).rpc.rsplit(".", 2)
            handler = getattr(self._services[service], snake_case(method))
            try:
                await handler(request, self._call)
            except InvalidRequest as error:
                raise _placed(error, step) from error
        return self.transaction.made[first][1].resource

    async def _create(self, kind: "_Bulk", tenant: str, group: Sequence[tuple[Step, list[Request]]]) -> list[str]:
        rows = []
        for step, (request,) in group:
            try:
                rows.append(kind.row(request))
            except InvalidRequest as error:
                raise _placed(error, step) from error
        await kind.create(self._session, tenant, rows)
        names = []
        for (_, (request,)), row in zip(group, rows, strict=True):
            after = kind.message(row)
            self.transaction.made.append((request, Change(resource=after.name, before=None, after=after, answer=after)))
            names.append(after.name)
        self.transaction.topics.update(kind.topics)
        return names


class _Bulk:
    """How many of one kind are made at once."""

    def __init__(
        self,
        row: Callable[[Any], Any],
        create: Callable[[AsyncSession, str, Sequence[Any]], Awaitable[None]],
        message: Callable[[Any], Any],
        *topics: Topic,
    ) -> None:
        self.row = row
        self.create = create
        self.message = message
        self.topics = topics


_BULK: Final[Mapping[type[Message], _Bulk]] = {
    principals_pb2.CreatePrincipalRequest: _Bulk(new_principal, bulk_store.create_principals, principal_message),
    departments_pb2.CreateDepartmentRequest: _Bulk(
        new_department, bulk_store.create_departments, department_message, Topic.ACCESS
    ),
    projects_pb2.CreateProjectRequest: _Bulk(new_project, bulk_store.create_projects, project_message),
}


def _bulk_kind(requests: Sequence[Request]) -> _Bulk | None:
    return _BULK.get(type(requests[0])) if len(requests) == 1 else None


def _new_departments(asked: Sequence[tuple[Step, list[Request]]]) -> dict[str, str]:
    """Return for each department that is to be created the name of what is above it."""
    return {
        f"{request.parent}/departments/{request.department_id}": request.department.parent_department or request.parent
        for _, requests in asked
        for request in requests
        if isinstance(request, departments_pb2.CreateDepartmentRequest)
    }


def _placed(error: InvalidRequest, step: Step) -> InvalidRequest:
    """Return a refusal of a single method as one of the document."""
    where = place(step.section, step.key)
    return InvalidRequest(
        violations=tuple(
            FieldViolation(path=f"{where}.{one.path.rpartition('.')[2]}", description=one.description)
            for one in error.violations
        )
    )
