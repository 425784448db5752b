"""What price proposals are made of: the same whether they are asked for or an import becomes one."""

import secrets
from datetime import datetime, timedelta
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession
from tollhouse.admin.v1 import prices_pb2 as pb

from tollhouse_server.api.price_messages import FileRequest, parsed_file, proposal_message
from tollhouse_server.api.values import moment_of
from tollhouse_server.names import invalid
from tollhouse_server.pricing import proposal_store
from tollhouse_server.pricing.imports import Import
from tollhouse_server.pricing.plausibility import Allowances
from tollhouse_server.pricing.tables import PriceProposalRow
from tollhouse_server.routing.model_store import shutdowns

USUAL: Final = timedelta(days=14)
LONGEST: Final = timedelta(days=90)
"""How long a proposal may wait: prices that nobody has looked at for a quarter are not those of today."""


async def keep_proposal(session: AsyncSession, request: FileRequest, wanted: Import) -> pb.PriceProposal:
    """Keep the file of a request as a proposal, and return it with its differences.

    Raises:
        InvalidRequest: its expiry is past or too far.
        EtagMismatch, PricesImplausible: see `proposal_store.propose`.
    """
    row = PriceProposalRow(
        proposal_id=f"pp-{secrets.token_hex(8)}",
        base_version=wanted.base_version,
        format=pb.PriceFileFormat.Name(request.format).removeprefix("PRICE_FILE_FORMAT_"),
        content=request.content,
        digest=wanted.parsed.digest,
        note=wanted.parsed.note,
        max_jump_factor=wanted.allowances.max_jump_factor,
        allows_jumps=wanted.allowances.allow_jumps,
        reason=wanted.allowances.reason,
        requested_by=wanted.importer,
        expires_at=_expiry(request, await proposal_store.read_now(session)),
    )
    view, imported = await proposal_store.propose(session, row, wanted)
    return proposal_message(view, imported)


async def import_of(session: AsyncSession, row: PriceProposalRow, *, approver: str = "") -> Import:
    """Return the import that a proposal stands for."""
    kind = pb.PriceFileFormat.Value(f"PRICE_FILE_FORMAT_{row.format}")
    return Import(
        parsed=parsed_file(pb.ProposePricesRequest(format=kind, content=row.content)),
        importer=row.requested_by,
        approver=approver,
        allowances=Allowances(max_jump_factor=row.max_jump_factor, allow_jumps=row.allows_jumps, reason=row.reason),
        shutdowns=await shutdowns(session),
    )


def _expiry(request: FileRequest, now: datetime) -> datetime:
    if not isinstance(request, pb.ProposePricesRequest) or not request.HasField("expire_time"):
        return now + USUAL
    expires_at = moment_of(request.expire_time, "expire_time")
    if not now < expires_at <= now + LONGEST:
        raise invalid("expire_time", f"must be in the future and at most {LONGEST.days} days ahead")
    return expires_at
