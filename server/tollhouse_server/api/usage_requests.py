"""What requests about usage have in common: the scope they are about, the period, the place in a list."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.api.pages import ListRequest, PageTokens
from tollhouse_server.api.values import moment_of
from tollhouse_server.names import DepartmentName, ProjectName, Scope, TenantName, invalid
from tollhouse_server.reporting.periods import Period
from tollhouse_server.reporting.questions import Position
from tollhouse_server.reporting.records import UsageRecord
from tollhouse_server.tenancy import store as tenancy


class PeriodRequest(Protocol):
    """A request with an optional start and end; it is a protobuf message."""

    @property
    def start_time(self) -> Timestamp: ...

    @property
    def end_time(self) -> Timestamp: ...

    def HasField(self, field_name: Literal["start_time", "end_time"], /) -> bool: ...  # noqa: N802 - protobuf's


class RecordsRequest(PeriodRequest, ListRequest, Protocol):
    """A request for a page of usage records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsPage:
    """Where a page of records begins, and the period of the whole list: the first page fixes it for all."""

    period: Period
    after: Position | None = None

    @classmethod
    def of(cls, request: RecordsRequest, pages: PageTokens, *, default_start: datetime, now: datetime) -> "RecordsPage":
        """Return what the request asks for; an absent end is `now`, as it was at the first page.

        Raises:
            InvalidRequest: the token is not of this request, or the period ends before it starts.
        """
        position = pages.after(request)
        if not position:
            return cls(period=period_of(request, default_start=default_start, now=now))
        start, end, settled_at, attempt_id = position.split(" ")
        return cls(
            period=Period(start=datetime.fromisoformat(start), end=datetime.fromisoformat(end)),
            after=Position(settled_at=datetime.fromisoformat(settled_at), attempt_id=UUID(attempt_id)),
        )

    def token(self, request: RecordsRequest, pages: PageTokens, last: UsageRecord | None) -> str:
        """Return the token that goes on behind `last`; without one there is no further page."""
        if last is None:
            return ""
        moments = (self.period.start, self.period.end, last.settled_at)
        return pages.next(request, " ".join((*(one.isoformat() for one in moments), str(last.attempt_id))))


def period_of(request: PeriodRequest, *, default_start: datetime, now: datetime) -> Period:
    """Return the period that a request names; an absent end is `now`.

    Raises:
        InvalidRequest: it ends before it starts.
    """
    start = moment_of(request.start_time, "start_time") if request.HasField("start_time") else default_start
    end = moment_of(request.end_time, "end_time") if request.HasField("end_time") else now
    if start > end:
        raise invalid("end_time", f"must not be before the start of the period, {start.isoformat()}")
    return Period(start=start, end=end)


async def require_scope(session: AsyncSession, scope: Scope) -> tuple[str, ...]:
    """Return the resource names of the scope and of all above it, the narrowest first; deleted ones count too.

    Raises:
        ResourceNotFound: there is no such tenant, department or project.
    """
    tenant = TenantName(scope.tenant)
    if isinstance(scope, TenantName):
        await tenancy.get_tenant(session, tenant)
        return (str(tenant),)
    department = DepartmentName(scope.tenant, scope.department)
    projects: tuple[str, ...] = ()
    if isinstance(scope, ProjectName):
        await tenancy.get_project(session, scope)
        projects = (str(scope),)
    path = (await tenancy.get_department(session, department)).path.split(".")
    departments = (str(DepartmentName(scope.tenant, one)) for one in reversed(path))
    return (*projects, *departments, str(tenant))
