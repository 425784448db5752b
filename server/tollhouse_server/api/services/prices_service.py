"""PriceService: what a unit of each model costs, and what an upstream address costs on top, from which day on."""

from typing import TypeAlias

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import prices_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.mutation import Change, Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.price_messages import (
    allowances_of,
    book_message,
    book_prices,
    episode_message,
    import_answer,
    parsed_file,
    position_of,
    price_changes,
)
from tollhouse_server.api.price_requests import keep_proposal
from tollhouse_server.api.values import moment_of
from tollhouse_server.database.engine import Database
from tollhouse_server.names import PriceBookName, invalid
from tollhouse_server.pricing import history_store, store
from tollhouse_server.pricing.draft import draft_prices
from tollhouse_server.pricing.imports import Import, import_file
from tollhouse_server.pricing.terms import PriceBook
from tollhouse_server.routing.model_store import shutdowns

_Import: TypeAlias = Change[pb.ImportPricesResponse]


class PriceService:
    """Imports price files, or has them proposed where `needs_second_person`; reads the book, past versions too."""

    def __init__(
        self, database: Database, mutations: Mutations, pages: PageTokens, *, needs_second_person: bool = False
    ) -> None:
        self._database = database
        self._mutations = mutations
        self._pages = pages
        self._needs_second_person = needs_second_person

    async def import_prices(self, request: pb.ImportPricesRequest, call: Call) -> pb.ImportPricesResponse:
        parsed, allowances = parsed_file(request), allowances_of(request.allowances)

        async def act(session: AsyncSession) -> _Import:
            wanted = Import(
                parsed=parsed,
                importer=call.principal.name,
                base_version=request.base_version,
                allowances=allowances,
                shutdowns=await shutdowns(session),
            )
            if self._needs_second_person:
                return await _proposed(session, request, wanted)
            answer = import_answer(await import_file(session, wanted))
            # The trail names the version and its digest; what changed is in the book itself, for good.
            return Change(resource=answer.price_book.name, before=None, after=answer.price_book, answer=answer)

        return await self._mutations.run(call, request, pb.ImportPricesResponse, act)

    async def list_prices(self, request: pb.ListPricesRequest, call: Call) -> pb.ListPricesResponse:
        at = moment_of(request.effective_at, "effective_at") if request.HasField("effective_at") else None
        async with self._database.within(call.domain) as session:
            book = await _book_asked_for(session, request)
        prices = {position_of(price): price for price in book_prices(book, model=request.model, at=at)}
        after = self._pages.after(request)
        positions = sorted(position for position in prices if position > after)
        page, last = self._pages.split(request, positions)
        token = self._pages.next(request, last) if last else ""
        return pb.ListPricesResponse(
            prices=[prices[position] for position in page], next_page_token=token, version=book.version
        )

    async def get_price_book(self, request: pb.GetPriceBookRequest, call: Call) -> pb.PriceBook:
        async with self._database.within(call.domain) as session:
            version = await _version_named(session, request.name, "name")
            return book_message(await store.get_version(session, version))

    async def list_price_books(self, request: pb.ListPriceBooksRequest, call: Call) -> pb.ListPriceBooksResponse:
        after, size = self._pages.after(request), self._pages.size(request) + 1
        async with self._database.within(call.domain) as session:
            rows = await history_store.list_versions(session, below=int(after) if after else None, size=size)
        page, last = self._pages.split(request, rows)
        token = self._pages.next(request, str(last.version)) if last else ""
        return pb.ListPriceBooksResponse(price_books=map(book_message, page), next_page_token=token)

    async def list_price_changes(self, request: pb.ListPriceChangesRequest, call: Call) -> pb.ListPriceChangesResponse:
        async with self._database.within(call.domain) as session:
            version = await _version_named(session, request.parent, "parent")
            after = await _existing(session, version)
            before = await _existing(session, request.base_version or version - 1)
        start = int(self._pages.after(request) or 0)
        size = self._pages.size(request)
        changes = price_changes(before, after, model=request.model)
        token = self._pages.next(request, str(start + size)) if len(changes) > start + size else ""
        return pb.ListPriceChangesResponse(changes=changes[start : start + size], next_page_token=token)

    async def list_price_history(self, request: pb.ListPriceHistoryRequest, call: Call) -> pb.ListPriceHistoryResponse:
        async with self._database.within(call.domain) as session:
            episodes = await history_store.history(session, request.model, sku=request.sku)
        start = int(self._pages.after(request) or 0)
        size = self._pages.size(request)
        token = self._pages.next(request, str(start + size)) if len(episodes) > start + size else ""
        return pb.ListPriceHistoryResponse(
            episodes=map(episode_message, episodes[start : start + size]), next_page_token=token
        )

    async def get_price_draft(self, request: pb.GetPriceDraftRequest, call: Call) -> pb.PriceDraft:
        async with self._database.within(call.domain) as session:
            book = await store.load(session)
        draft = await draft_prices(book, request.models)
        return pb.PriceDraft(
            content=draft.content,
            base_version=book.version,
            source_version=draft.source_version,
            notes=[
                pb.PriceDraftNote(
                    kind=pb.PriceDraftNote.Kind.Value(f"KIND_{note.kind}"),
                    model=note.model,
                    subject=note.subject,
                    explanation=note.explanation,
                )
                for note in draft.notes
            ],
        )


async def _proposed(session: AsyncSession, request: pb.ImportPricesRequest, wanted: Import) -> _Import:
    """Make a proposal of an import."""
    proposal = await keep_proposal(session, request, wanted)
    answer = pb.ImportPricesResponse(
        proposal=proposal, changes=proposal.changes, unchanged_count=proposal.unchanged_count
    )
    # They are in the answer itself; twice would make it twice as large.
    answer.proposal.ClearField("changes")
    return Change(resource=proposal.name, before=None, after=answer.proposal, answer=answer)


async def _book_asked_for(session: AsyncSession, request: pb.ListPricesRequest) -> PriceBook:
    if request.version and request.HasField("known_at"):
        raise invalid("known_at", "says which version already; leave one of the two out")
    if request.version:
        return await _existing(session, request.version)
    if request.HasField("known_at"):
        known_at = moment_of(request.known_at, "known_at")
        return await store.load(session, await history_store.version_known_at(session, known_at))
    return await store.load(session)


async def _version_named(session: AsyncSession, name: str, field: str) -> int:
    wanted = PriceBookName.parse(name, field).version
    return await store.current_version(session) if wanted == "current" else int(wanted)


async def _existing(session: AsyncSession, version: int) -> PriceBook:
    """Return a version's book; that of version 0 is empty."""
    if version:
        await store.get_version(session, version)
    return await store.load(session, version)
