"""PriceProposalService: price files proposed by one person and decided on by another."""

from typing import TypeAlias

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import prices_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens, moment_and_key, position_at
from tollhouse_server.api.price_messages import allowances_of, parsed_file, proposal_message
from tollhouse_server.api.price_requests import import_of, keep_proposal
from tollhouse_server.api.values import version_of
from tollhouse_server.database.decisions import APPROVE, REJECT, WITHDRAW, Decision, Step
from tollhouse_server.database.engine import Database
from tollhouse_server.names import PriceProposalName
from tollhouse_server.pricing import proposal_store as store
from tollhouse_server.pricing.imports import Import
from tollhouse_server.routing.model_store import shutdowns

StepRequest: TypeAlias = (
    pb.ApprovePriceProposalRequest | pb.RejectPriceProposalRequest | pb.WithdrawPriceProposalRequest
)


class PriceProposalService:
    """Makes proposals, shows them with their differences, and takes the steps that decide on them."""

    def __init__(self, database: Database, mutations: Mutations, pages: PageTokens) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages

    async def propose_prices(self, request: pb.ProposePricesRequest, call: Call) -> pb.PriceProposal:
        parsed, allowances = parsed_file(request), allowances_of(request.allowances)

        async def act(session: AsyncSession) -> Change[pb.PriceProposal]:
            wanted = Import(
                parsed=parsed,
                importer=call.principal.name,
                base_version=request.base_version,
                allowances=allowances,
                shutdowns=await shutdowns(session),
            )
            answer = await keep_proposal(session, request, wanted)
            return Change(resource=answer.name, before=None, after=_without_changes(answer), answer=answer)

        return await self._mutations.run(call, request, pb.PriceProposal, act)

    async def get_price_proposal(self, request: pb.GetPriceProposalRequest, call: Call) -> pb.PriceProposal:
        async with self._database.within(call.domain) as session:
            view = await store.view_proposal(session, PriceProposalName.parse(request.name))
            imported = await store.preview(session, view.row, await import_of(session, view.row))
        return proposal_message(view, imported)

    async def list_price_proposals(
        self, request: pb.ListPriceProposalsRequest, call: Call
    ) -> pb.ListPriceProposalsResponse:
        state = pb.PriceProposal.State.Name(request.state).removeprefix("STATE_") if request.state else ""
        async with self._database.within(call.domain) as session:
            views = await store.list_proposals(
                session,
                state=state,
                after=moment_and_key(self._pages.after(request)),
                size=self._pages.size(request) + 1,
            )
        page, last = self._pages.split(request, views)
        token = self._pages.next(request, position_at(last.row.created_at, last.row.proposal_id)) if last else ""
        return pb.ListPriceProposalsResponse(price_proposals=map(proposal_message, page), next_page_token=token)

    async def approve_price_proposal(self, request: pb.ApprovePriceProposalRequest, call: Call) -> pb.PriceProposal:
        return await self._take(APPROVE, request, call)

    async def reject_price_proposal(self, request: pb.RejectPriceProposalRequest, call: Call) -> pb.PriceProposal:
        return await self._take(REJECT, request, call)

    async def withdraw_price_proposal(self, request: pb.WithdrawPriceProposalRequest, call: Call) -> pb.PriceProposal:
        return await self._take(WITHDRAW, request, call)

    async def _take(self, step: Step, request: StepRequest, call: Call) -> pb.PriceProposal:
        name = PriceProposalName.parse(request.name)
        decision = Decision(
            step=step,
            by=call.principal.name,
            reason=request.decision_reason.strip(),
            expected_version=version_of(request.etag, str(name)),
        )

        async def act(session: AsyncSession) -> Change[pb.PriceProposal]:
            proposal = await store.view_proposal(session, name, lock=True)
            before = proposal_message(proposal)
            wanted = await import_of(session, proposal.row, approver=decision.by)
            decided = await store.decide(session, proposal, decision, wanted)
            answer = proposal_message(decided, await store.preview(session, decided.row, wanted))
            return Change(resource=str(name), before=before, after=_without_changes(answer), answer=answer)

        return await self._mutations.run(call, request, pb.PriceProposal, act)


def _without_changes(proposal: pb.PriceProposal) -> pb.PriceProposal:
    """Return what the trail says of a proposal: the file's digest stands for what it changes."""
    bare = pb.PriceProposal()
    bare.CopyFrom(proposal)
    bare.ClearField("changes")
    return bare
