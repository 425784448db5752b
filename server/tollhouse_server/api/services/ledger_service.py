"""LedgerService: what is in suspense, and whether the ledger adds up."""

from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import ledger_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.limit_requests import quantity
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.usage_requests import require_scope
from tollhouse_server.api.values import moment_of, money, nanos_of, timestamp
from tollhouse_server.database.engine import Database
from tollhouse_server.ledger import suspense_store as store
from tollhouse_server.ledger.suspense_store import (
    CounterChange,
    Resolution,
    Ruling,
    SuspenseEntry,
    SuspenseFilter,
    SuspensePosition,
)
from tollhouse_server.ledger.terms import Amounts
from tollhouse_server.ledger.verification import LedgerVerification, Progress, Verdict, VerificationEvent
from tollhouse_server.ledger.verification_store import Check, Finding
from tollhouse_server.ledger.windows import TOTAL_START
from tollhouse_server.names import (
    AccountName,
    LimitName,
    PrincipalName,
    ProjectName,
    SuspenseName,
    TenantName,
    invalid,
    parse_scope,
)
from tollhouse_server.tenancy import store as tenancy


class LedgerService:
    """Lists and resolves suspense; verifies the ledger."""

    def __init__(
        self, database: Database, mutations: Mutations, pages: PageTokens, verification: LedgerVerification
    ) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._verification = verification

    async def list_suspense(self, request: pb.ListSuspenseRequest, call: Call) -> pb.ListSuspenseResponse:
        scope = parse_scope(request.parent, "parent")
        async with self._database.within(call.domain) as session:
            await require_scope(session, scope)
            found = await store.list_suspense(
                session,
                scope,
                _filter(request),
                after=_position(self._pages.after(request)),
                size=self._pages.size(request) + 1,
            )
        entries, last = self._pages.split(request, found)
        token = ""
        if last is not None:
            token = self._pages.next(request, f"{last.suspended_at.isoformat()} {last.name.attempt}")
        return pb.ListSuspenseResponse(suspense=map(_message, entries), next_page_token=token)

    async def get_suspense(self, request: pb.GetSuspenseRequest, call: Call) -> pb.Suspense:
        name = SuspenseName.parse(request.name)
        async with self._database.within(call.domain) as session:
            return _message(await store.get_suspense(session, name))

    async def resolve_suspense(self, request: pb.ResolveSuspenseRequest, call: Call) -> pb.ResolveSuspenseResponse:
        name = SuspenseName.parse(request.name)

        async def act(session: AsyncSession) -> Change[pb.ResolveSuspenseResponse]:
            before = await store.get_suspense(session, name)
            ruling = _ruling(request, before, resolved_by=call.principal.name)
            after, counters = await store.resolve(session, before, ruling)
            answer = pb.ResolveSuspenseResponse(
                suspense=_message(after),
                adjustment=_amounts(ruling.outcome(before.booked).minus(before.booked)),
                counters=[_counter(name.tenant, change) for change in counters],
            )
            return Change(resource=str(name), before=_message(before), after=answer, answer=answer)

        return await self._mutations.run(call, request, pb.ResolveSuspenseResponse, act)

    async def verify_ledger(
        self, request: pb.VerifyLedgerRequest, call: Call
    ) -> AsyncIterator[pb.VerifyLedgerResponse]:
        tenant = None
        if request.parent:
            name = TenantName.parse(request.parent, "parent")
            async with self._database.within(call.domain) as session:
                await tenancy.get_tenant(session, name)
            tenant = name.tenant
        async for event in self._verification.verify(tenant=tenant, month=request.month):
            yield _event(event)


def _filter(request: pb.ListSuspenseRequest) -> SuspenseFilter:
    before: datetime | None = None
    if request.HasField("suspended_before"):
        before = moment_of(request.suspended_before, "suspended_before")
    return SuspenseFilter(show_resolved=request.show_resolved, cause=request.cause, suspended_before=before)


def _position(text: str) -> SuspensePosition | None:
    if not text:
        return None
    suspended_at, attempt_id = text.split(" ")
    return SuspensePosition(datetime.fromisoformat(suspended_at), UUID(attempt_id))


def _ruling(request: pb.ResolveSuspenseRequest, entry: SuspenseEntry, *, resolved_by: str) -> Ruling:
    resolution = Resolution(pb.SuspenseResolution.Name(request.resolution).removeprefix("SUSPENSE_RESOLUTION_"))
    is_actual = resolution is Resolution.ACTUAL
    if request.HasField("actual") is not is_actual:
        raise invalid("actual", "is required for ACTUAL, and only there")
    if not request.reason.strip():
        raise invalid("reason", "must not be blank")
    actual = _actual(request.actual, entry.booked) if is_actual else None
    return Ruling(resolution=resolution, actual=actual, resolved_by=resolved_by, reason=request.reason)


def _actual(actual: pb.ActualUsage, booked: Amounts) -> Amounts:
    """Return what an attempt came to; what the request does not say is as it is booked."""
    if not actual.HasField("cost"):
        raise invalid("actual.cost", "is required")
    nanos = nanos_of(actual.cost, "actual.cost")
    if nanos < 0:
        raise invalid("actual.cost", "must not be negative")
    # A policy may have booked nothing, and this is a call that was served.
    return Amounts(
        requests=1,
        input_tokens=actual.input_tokens if actual.HasField("input_tokens") else booked.input_tokens,
        output_tokens=actual.output_tokens if actual.HasField("output_tokens") else booked.output_tokens,
        images=actual.images if actual.HasField("images") else booked.images,
        cost_nanos=nanos,
    )


def _message(entry: SuspenseEntry) -> pb.Suspense:
    tenant = entry.name.tenant
    resolution = entry.resolution or "UNSPECIFIED"
    return pb.Suspense(
        name=str(entry.name),
        cause=entry.cause,
        worker_epoch=entry.worker_epoch,
        start_time=timestamp(entry.dispatched_at),
        suspend_time=timestamp(entry.suspended_at),
        request_id=str(entry.request_id),
        project=str(ProjectName(tenant, entry.department_path[-1], entry.project_id)),
        principal=str(PrincipalName(tenant, entry.principal_id)),
        tier=entry.tier,
        model=entry.model,
        account=str(AccountName(entry.account_id)),
        method=entry.method,
        booked=_amounts(entry.booked),
        ceiling=money(entry.ceiling_nanos),
        resolution=pb.SuspenseResolution.Value(f"SUSPENSE_RESOLUTION_{resolution}"),
        resolve_time=timestamp(entry.resolved_at),
        resolver=entry.resolved_by,
        reason=entry.reason,
        outcome=None if entry.outcome is None else _amounts(entry.outcome),
    )


def _amounts(amounts: Amounts) -> pb.SuspenseAmounts:
    return pb.SuspenseAmounts(
        requests=amounts.requests,
        input_tokens=amounts.input_tokens,
        output_tokens=amounts.output_tokens,
        images=amounts.images,
        cost=money(amounts.cost_nanos),
    )


def _counter(tenant: str, change: CounterChange) -> pb.SuspenseCounterChange:
    start = None if change.window_start == TOTAL_START else change.window_start
    return pb.SuspenseCounterChange(
        limit=str(LimitName(tenant, change.limit)),
        window_start_time=timestamp(start),
        settled_before=quantity(change.settled_before, change.metric),
        settled_after=quantity(change.settled_after, change.metric),
    )


def _event(event: VerificationEvent) -> pb.VerifyLedgerResponse:
    match event:
        case Progress():
            progress = pb.VerificationProgress(
                tenant=str(TenantName(event.tenant)),
                check=_check(event.check),
                done_steps=event.done_steps,
                total_steps=event.total_steps,
                record_count=event.records,
            )
            return pb.VerifyLedgerResponse(progress=progress)
        case Finding():
            return pb.VerifyLedgerResponse(finding=_finding(event))
        case Verdict():
            return pb.VerifyLedgerResponse(summary=_summary(event))


def _check(check: Check) -> "pb.VerificationCheck.ValueType":
    return pb.VerificationCheck.Value(f"VERIFICATION_CHECK_{check}")


def _finding(finding: Finding) -> pb.VerificationFinding:
    return pb.VerificationFinding(
        tenant=str(TenantName(finding.tenant)),
        check=_check(finding.check),
        table=finding.table,
        key=finding.key,
        field=finding.field,
        expected=finding.expected,
        found=finding.found,
    )


def _summary(verdict: Verdict) -> pb.VerificationSummary:
    return pb.VerificationSummary(
        snapshot_time=timestamp(verdict.snapshot_at),
        tenant_count=verdict.tenants,
        record_count=verdict.extent.records,
        counter_count=verdict.extent.counters,
        suspense_count=verdict.extent.suspense,
        attempt_count=verdict.extent.attempts,
        rollup_day_count=verdict.extent.rollup_days,
        unchecked_counter_count=verdict.unchecked_counters,
        unnamed_record_count=verdict.extent.unnamed_records,
        finding_count=verdict.findings,
        truncated=verdict.truncated,
    )
