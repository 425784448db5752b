"""Books what devices report: each receipt for itself, once for ever, at no cost."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.database.engine import Database, RollBack
from tollhouse_server.devices import store
from tollhouse_server.devices.avoided import Alternative
from tollhouse_server.devices.checks import check_content, check_origin, refused
from tollhouse_server.devices.tables import DeviceRow
from tollhouse_server.devices.terms import Avoided, Outcome, Receipt, Refusal, Sealed, Verdict
from tollhouse_server.names import ProjectName
from tollhouse_server.pricing.terms import PriceBook
from tollhouse_server.routing.catalogue import Catalogue
from tollhouse_server.tenancy.project_paths import ProjectPaths
from tollhouse_server.tenancy.store import read_clock

_CHECKED_IN_A_ROW: Final = 16
"""Signatures that are checked before others have their turn: some 2 ms."""


class OnDeviceBooks:
    """Takes receipts, by the catalogue, the policies and the prices in force at the moment of the report."""

    def __init__(
        self,
        database: Database,
        *,
        catalogue: Callable[[], Catalogue],
        price_book: Callable[[], PriceBook],
        project_paths: ProjectPaths,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._price_book = price_book
        self._project_paths = project_paths

    async def take(self, project: ProjectName, reported: Sequence[Sealed], *, dry_run: bool) -> list[Outcome]:
        """Book the receipts that are good and return what became of each, in their order.

        Raises:
            ResourceNotFound: there is no such project, or it is not active.
            StoreUnavailable: nothing was booked, or all that was good; the same report again tells.
        """
        path = await self._project_paths.path_of(project)
        named = {one.receipt.device.device for one in reported if one.receipt is not None}
        async with self._database.within(project.tenant) as session:
            known = await store.devices_of(session, project.tenant, named)
        outcomes = await _origins(reported, known, project)
        good = [one.receipt for one, outcome in zip(reported, outcomes, strict=True) if outcome is None and one.receipt]
        booked = iter(await self._book(project, path, good, dry_run=dry_run))
        return [outcome or next(booked) for outcome in outcomes]

    async def _book(
        self, project: ProjectName, path: tuple[str, ...], receipts: Sequence[Receipt], *, dry_run: bool
    ) -> list[Outcome]:
        if not receipts:
            return []
        outcomes: list[Outcome] = []
        try:
            async with self._database.within(project.tenant) as session:
                outcomes = await self._decide(session, project, path, receipts)
                if dry_run:
                    raise RollBack
        except RollBack:
            pass
        return outcomes

    async def _decide(
        self, session: AsyncSession, project: ProjectName, path: tuple[str, ...], receipts: Sequence[Receipt]
    ) -> list[Outcome]:
        # While they are locked nobody else books receipts of these devices, revokes or deletes them.
        named = {one.device.device for one in receipts}
        devices = await store.devices_of(session, project.tenant, named, lock=True)
        catalogue = self._catalogue()
        desk = _Desk(
            devices=devices,
            booked=await store.booked_before(session, project.tenant, receipts),
            alternative=Alternative(
                catalogue=catalogue,
                policy=catalogue.policy(project.tenant, path, project.project),
                price_book=self._price_book(),
                at=(await read_clock(session, project.tenant)).now.astimezone(UTC),
            ),
        )
        outcomes = [desk.decide(receipt) for receipt in receipts]
        session.add_all(devices.values())
        accepted = [(one.receipt, one.avoided) for one in outcomes if one.receipt is not None and one.avoided]
        await store.book(session, [_usage(receipt, avoided, path, project, desk.now) for receipt, avoided in accepted])
        return outcomes


async def _origins(
    reported: Sequence[Sealed], devices: dict[str, DeviceRow], project: ProjectName
) -> list[Outcome | None]:
    """Return why receipts are not of devices of the project, None for those that are."""
    outcomes: list[Outcome | None] = []
    for start in range(0, len(reported), _CHECKED_IN_A_ROW):
        for sealed in reported[start : start + _CHECKED_IN_A_ROW]:
            device = devices.get(sealed.receipt.device.device) if sealed.receipt else None
            outcomes.append(check_origin(sealed, device, project))
        # Other calls of this process must not wait for a thousand signatures.
        await asyncio.sleep(0)
    return outcomes


@dataclass(slots=True, kw_only=True)
class _Desk:
    """Decides on genuine receipts one after the other; notes what is taken, on the locked rows too."""

    devices: dict[str, DeviceRow]
    booked: store.Booked
    alternative: Alternative

    @property
    def now(self) -> datetime:
        """The moment of the report, by the database's clock."""
        return self.alternative.at

    def decide(self, receipt: Receipt) -> Outcome:
        """Return what becomes of a receipt."""
        device = self.devices.get(receipt.device.device)
        if device is None:
            return refused(Refusal.DEVICE_UNKNOWN, f"{receipt.device} was deleted.", receipt)
        if device.revoked_at is not None:
            return refused(Refusal.DEVICE_REVOKED, f"{receipt.device} was revoked.", receipt)
        digests = self.booked.digests(receipt)
        if digests == {receipt.digest}:
            return Outcome(verdict=Verdict.DUPLICATE, receipt=receipt, message="It was booked before.")
        if digests:
            message = f"Its id or sequence {receipt.sequence} was used before, for another receipt of {receipt.device}."
            return refused(Refusal.NUMBER_REUSED, message, receipt)
        return check_content(receipt, self.now) or self._take(receipt, device)

    def _take(self, receipt: Receipt, device: DeviceRow) -> Outcome:
        today = self.now.date()
        if device.report_day != today:
            device.report_day, device.report_receipts, device.report_tokens = today, 0, 0
        if (
            device.report_receipts + 1 > device.max_daily_receipts
            or device.report_tokens + receipt.tokens > device.max_daily_tokens
        ):
            most = f"{device.max_daily_receipts:,} receipts and {device.max_daily_tokens:,} tokens a day"
            return refused(Refusal.DAILY_LIMIT, f"{receipt.device} may report {most}.", receipt)
        device.report_receipts += 1
        device.report_tokens += receipt.tokens
        device.last_report_at = self.now
        self.booked.add(receipt)
        return Outcome(verdict=Verdict.ACCEPTED, receipt=receipt, avoided=self.alternative.avoided(receipt))


def _usage(
    receipt: Receipt, avoided: Avoided, path: tuple[str, ...], project: ProjectName, at: datetime
) -> dict[str, Any]:
    return {
        "tenant_id": project.tenant,
        "device_id": receipt.device.device,
        "sequence": receipt.sequence,
        "receipt_id": receipt.receipt_id,
        "digest": receipt.digest,
        "booked_at": at,
        "started_at": receipt.started_at,
        "department_path": list(path),
        "project_id": project.project,
        "model": receipt.model,
        "task": receipt.task,
        "labels": dict(receipt.labels),
        "requests": receipt.requests,
        "input_tokens": receipt.input_tokens,
        "output_tokens": receipt.output_tokens,
        "avoided_nanos": avoided.nanos,
        "avoided_model": avoided.model,
        "price_version": avoided.price_version,
    }
