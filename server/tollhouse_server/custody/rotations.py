"""The machine that carries rotations through: one step at a time, each safe to do twice, none by two at once.

A step is claimed for a time with a fence that only rises, does what it does outside PostgreSQL, and then writes what
came of it, the next step and the audit row in one transaction that holds only under its own fence. Whoever crashed in
between has done something that the next one finds: keys are issued under the rotation's own id, and Vault is written
with check-and-set.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.custody import rotation_store as store
from tollhouse_server.custody.probe import Probe, ProbeVerdict
from tollhouse_server.custody.providers.protocol import IssuedKey, KeyOrder, KeyProvider
from tollhouse_server.custody.rotation_store import Overtaken
from tollhouse_server.custody.tables import KeyRotationRow
from tollhouse_server.custody.terms import ROTATABLE, KeyState, Outcome, ProviderKind, Step
from tollhouse_server.database.engine import Database
from tollhouse_server.errors import EtagMismatch, KeyProviderFailed, SecretMissing, StoreUnavailable, TollhouseError
from tollhouse_server.routing import account_store
from tollhouse_server.routing.tables import UpstreamKeyRow
from tollhouse_server.vault.key_ring import KEY_FIELD, upstream_key_path
from tollhouse_server.vault.secret_text import SecretFields, SecretText

_log = structlog.get_logger(__name__)

_RETIRE_BY_HAND: Final = "delete the key at its provider by hand: fingerprint "


class KeyVault(Protocol):
    """Vault as the custodian's role sees it."""

    async def read_secret(self, path: str, *, version: int | None = None) -> SecretFields:
        """Return the secret at `path`."""

    async def write_secret(self, path: str, values: Mapping[str, str], *, cas: int) -> int:
        """Write a version if the current one is `cas`, and return its number."""

    async def delete_secret(self, path: str) -> None:
        """Destroy every version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things are waited for."""

    lease_seconds: float = 90.0
    """Longer than any step takes, so that a process that lives is not overtaken."""
    step_seconds: float = 75.0
    overlap_seconds: float = 20.0
    """Between the moment a new key is put to use and the one in which its predecessor is not any more."""
    probe_seconds: float = 3.0
    probe_patience: timedelta = timedelta(minutes=10)
    unknown_patience: timedelta = timedelta(hours=2)
    stage_patience: timedelta = timedelta(days=1)
    manual_seconds: float = 30.0
    retry_seconds: float = 2.0
    longest_retry_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What a step works with: the rotation as claimed, its keys as they were then, and its order."""

    claimed: KeyRotationRow
    old: UpstreamKeyRow | None
    new: UpstreamKeyRow | None
    order: KeyOrder


def _unnoted(_: str) -> None:
    """Take no note of the account."""


class Rotations:
    """Does the next step of whichever rotation has one to do; any number of processes may.

    `note_promoted` is told the account of each key that was put in use.
    """

    def __init__(
        self,
        database: Database,
        vault: KeyVault,
        providers: Mapping[ProviderKind, KeyProvider],
        probe: Probe,
        pace: Pace = Pace(),
        *,
        note_promoted: Callable[[str], None] = _unnoted,
    ) -> None:
        self._note_promoted = note_promoted
        self._database = database
        self._vault = vault
        self._providers = providers
        self._probe = probe
        self._pace = pace
        self._steps: Mapping[Step, Callable[[_Facts], Awaitable[None]]] = {
            Step.STAGE: self._stage,
            Step.PROBE: self._check,
            Step.PROMOTE: self._promote,
            Step.OVERLAP: self._replace,
            Step.DRAIN: self._end_drain,
            Step.RETIRE: self._retire,
            Step.DESTROY: self._destroy,
            Step.ROLL_BACK: self._roll_back,
        }

    async def advance(self) -> bool:
        """Do one step of one rotation; False when nothing is due. What fails is noted and tried again.

        Raises:
            StoreUnavailable: PostgreSQL is gone; the step is done again when its lease is over.
        """
        async with self._database.transaction() as session:
            claimed = await store.claim(session, lease_seconds=self._pace.lease_seconds)
            facts = await self._read(session, claimed) if claimed is not None else None
        if facts is None:
            return False
        try:
            await self._do_step(facts)
        except Overtaken:
            _log.info("rotation_overtaken", rotation=facts.claimed.rotation_id, step=facts.claimed.step)
            await self._give_back(facts.claimed)
        return True

    async def _do_step(self, facts: _Facts) -> None:
        try:
            async with asyncio.timeout(self._pace.step_seconds):
                await self._steps[Step(facts.claimed.step)](facts)
        except StoreUnavailable:
            raise
        except (TollhouseError, TimeoutError) as error:
            await self._note_failure(facts, str(error) or "it took too long")

    async def _read(self, session: AsyncSession, claimed: KeyRotationRow) -> _Facts:
        account = await account_store.get_account(session, claimed.account_id)
        old = await store.find_key(session, claimed.account_id, claimed.old_key_id)
        new = await store.find_key(session, claimed.account_id, claimed.new_key_id)
        order = KeyOrder(
            account_id=claimed.account_id,
            project=account.project,
            key_id=claimed.new_key_id,
            old_key_id=claimed.old_key_id,
            old_version=old.vault_version if old else 0,
        )
        return _Facts(claimed=claimed, old=old, new=new, order=order)

    # --- steps --------------------------------------------------------------------------------------------------------

    async def _stage(self, facts: _Facts) -> None:
        provider = self._provider(facts)
        issued = await provider.find(facts.order) or await provider.issue(facts.order)
        if issued is None:
            await self._put_off(facts.claimed, store.WAITS_FOR_PERSON, self._pace.manual_seconds)
            return
        version = await self._write(facts.order, issued.secret)
        async with self._database.transaction() as session:
            await store.move(session, facts.claimed, Step.PROBE)
            await account_store.create_key(session, _staged(facts.order, issued, version))

    async def _write(self, order: KeyOrder, secret: SecretText) -> int:
        path, values = upstream_key_path(order.account_id, order.key_id), {KEY_FIELD: secret.reveal()}
        try:
            return await self._vault.write_secret(path, values, cas=0)
        except EtagMismatch:
            # Written by who crashed before us; two keys of one id are one key, so it mostly is the same.
            held = await self._vault.read_secret(path)
            if held.get(KEY_FIELD) == secret.reveal():
                return held.version
            return await self._vault.write_secret(path, values, cas=held.version)

    async def _check(self, facts: _Facts) -> None:
        claimed, new = facts.claimed, facts.new
        if new is None or new.state != KeyState.STAGED:
            await self._begin_roll_back(facts, _changed(new))
            return
        verdict = await self._probe.check(claimed.account_id, await self._secret(new))
        if verdict is ProbeVerdict.ACCEPTED:
            async with self._database.transaction() as session:
                await store.move(session, claimed, Step.PROMOTE)
            return
        refused = verdict is ProbeVerdict.REFUSED
        error = "the upstream refuses the new key" if refused else "the upstream says nothing about the new key"
        if _age(claimed.step_at) < (self._pace.probe_patience if refused else self._pace.unknown_patience):
            await self._put_off(claimed, error, self._pace.probe_seconds)
        else:
            await self._begin_roll_back(facts, error)

    async def _promote(self, facts: _Facts) -> None:
        """Put the new key to use while the old one still is: nobody is ever without one."""
        claimed, new = facts.claimed, facts.new
        if new is None or new.state != KeyState.STAGED:
            await self._begin_roll_back(facts, _changed(new))
            return
        async with self._database.transaction() as session:
            await store.move(session, claimed, Step.OVERLAP, wait_seconds=self._pace.overlap_seconds)
            promoted = await store.set_state(
                session, claimed.account_id, claimed.new_key_id, KeyState.ACTIVE, of=[KeyState.STAGED]
            )
            if not promoted:
                raise Overtaken
        self._note_promoted(claimed.account_id)

    async def _replace(self, facts: _Facts) -> None:
        claimed, new = facts.claimed, facts.new
        if new is None or new.state != KeyState.ACTIVE:
            await self._begin_roll_back(facts, _changed(new))
            return
        # While Vault is away there may be workers that have not read the new key: they need the old one.
        await self._secret(new)
        async with self._database.transaction() as session:
            await store.move(session, claimed, Step.DRAIN, wait_seconds=claimed.drain_seconds)
            await self._still_used(session, facts)
            await store.set_state(session, claimed.account_id, claimed.old_key_id, KeyState.DRAINING, of=ROTATABLE)

    async def _end_drain(self, facts: _Facts) -> None:
        if facts.new is None or facts.new.state != KeyState.ACTIVE:
            await self._begin_roll_back(facts, _changed(facts.new))
            return
        async with self._database.transaction() as session:
            await store.move(session, facts.claimed, Step.RETIRE)
            await self._still_used(session, facts)

    async def _still_used(self, session: AsyncSession, facts: _Facts) -> None:
        """Lock the new key and hold it to be in use: from here on the old one is gone."""
        new = await store.find_key(session, facts.claimed.account_id, facts.claimed.new_key_id, lock=True)
        if new is None or new.state != KeyState.ACTIVE:
            raise Overtaken

    async def _retire(self, facts: _Facts) -> None:
        claimed, old = facts.claimed, facts.old
        remark = claimed.remark
        if old is not None and not await self._retire_at_provider(facts, old):
            remark = f"{_RETIRE_BY_HAND}{old.fingerprint}"
        async with self._database.transaction() as session:
            await store.move(session, claimed, Step.DESTROY, remark=remark)

    async def _destroy(self, facts: _Facts) -> None:
        claimed = facts.claimed
        await self._vault.delete_secret(upstream_key_path(claimed.account_id, claimed.old_key_id))
        async with self._database.transaction() as session:
            await store.move(session, claimed, Step.DESTROY, outcome=Outcome.SUCCEEDED, ended=True)
            gone = [KeyState.DRAINING, *ROTATABLE]
            await store.set_state(session, claimed.account_id, claimed.old_key_id, KeyState.RETIRED, of=gone)
        _log.info("rotation_done", rotation=claimed.rotation_id, kind=claimed.kind, remark=claimed.remark)

    async def _roll_back(self, facts: _Facts) -> None:
        claimed, new = facts.claimed, facts.new
        remark = claimed.remark
        if new is None:
            new = await self._unrecorded(facts)
        if new is not None and not await self._retire_at_provider(facts, new):
            remark = f"{_RETIRE_BY_HAND}{new.fingerprint}"
        await self._vault.delete_secret(upstream_key_path(claimed.account_id, claimed.new_key_id))
        async with self._database.transaction() as session:
            outcome = Outcome(claimed.outcome or Outcome.FAILED)
            await store.move(session, claimed, Step.ROLL_BACK, outcome=outcome, remark=remark, ended=True)
            alive = [KeyState.STAGED, KeyState.DRAINING, *ROTATABLE]
            await store.set_state(session, claimed.account_id, claimed.new_key_id, KeyState.RETIRED, of=alive)
        _log.warning("rotation_rolled_back", rotation=claimed.rotation_id, outcome=outcome, error=claimed.error)

    # --- what steps share ---------------------------------------------------------------------------------------------

    def _provider(self, facts: _Facts) -> KeyProvider:
        kind = ProviderKind(facts.claimed.provider)
        if kind not in self._providers:
            raise KeyProviderFailed(provider=kind.value, detail="this server is not set up for it")
        return self._providers[kind]

    async def _unrecorded(self, facts: _Facts) -> UpstreamKeyRow | None:
        """A key that was issued by who crashed before it could be written down."""
        issued = await self._provider(facts).find(facts.order)
        # What a person has written into Vault stays his: nothing of ours was made of it yet.
        return _staged(facts.order, issued, 1) if issued is not None and issued.provider_key else None

    async def _retire_at_provider(self, facts: _Facts, key: UpstreamKeyRow) -> bool:
        secret: SecretText | None = None
        if not key.provider_key:
            try:
                secret = await self._secret(key)
            except SecretMissing:
                # Nobody can tell any more which of the provider's keys it is.
                return False
        return await self._provider(facts).retire(facts.order, provider_key=key.provider_key, secret=secret)

    async def _secret(self, key: UpstreamKeyRow) -> SecretText:
        """Return a key as Vault holds it.

        Raises:
            SecretMissing: there is no such version, or no key in it.
        """
        path = upstream_key_path(key.account_id, key.key_id)
        fields = await self._vault.read_secret(path, version=key.vault_version)
        if KEY_FIELD not in fields:
            raise SecretMissing(path=path)
        return SecretText(fields[KEY_FIELD])

    async def _begin_roll_back(self, facts: _Facts, error: str) -> None:
        """Give the old key back its place, take the new one out of use, and end in failure from there."""
        claimed = facts.claimed
        async with self._database.transaction() as session:
            await store.move(session, claimed, Step.ROLL_BACK, outcome=Outcome.FAILED, error=error)
            account, old, new = claimed.account_id, claimed.old_key_id, claimed.new_key_id
            await store.set_state(session, account, old, KeyState.ACTIVE, of=[KeyState.DRAINING])
            await store.set_state(session, account, new, KeyState.DRAINING, of=[KeyState.ACTIVE])
        _log.warning("rotation_failed", rotation=claimed.rotation_id, step=claimed.step, error=error)

    async def _note_failure(self, facts: _Facts, error: str) -> None:
        claimed = facts.claimed
        _log.warning("rotation_step_failed", rotation=claimed.rotation_id, step=claimed.step, error=error)
        if claimed.step == Step.STAGE and _age(claimed.created_at) > self._pace.stage_patience:
            await self._begin_roll_back(facts, error)
            return
        wait = min(self._pace.retry_seconds * 2 ** min(claimed.tries, 10), self._pace.longest_retry_seconds)
        await self._put_off(claimed, error, wait)

    async def _put_off(self, claimed: KeyRotationRow, error: str, wait_seconds: float) -> None:
        async with self._database.transaction() as session:
            await store.put_off(session, claimed, error=error, wait_seconds=wait_seconds)

    async def _give_back(self, claimed: KeyRotationRow) -> None:
        """Let the one who changed the rotation meanwhile have it at once; who raised the fence has it already."""
        try:
            await self._put_off(claimed, claimed.error, 0.0)
        except Overtaken:
            _log.info("rotation_taken_over", rotation=claimed.rotation_id)


def _staged(order: KeyOrder, issued: IssuedKey, version: int) -> UpstreamKeyRow:
    return UpstreamKeyRow(
        account_id=order.account_id,
        key_id=order.key_id,
        vault_version=version,
        fingerprint=account_store.fingerprint_of(issued.secret.reveal()),
        provider_key=issued.provider_key,
        state=KeyState.STAGED.value,
    )


def _changed(new: UpstreamKeyRow | None) -> str:
    return f"the new key is {new.state} meanwhile" if new is not None else "the new key is gone meanwhile"


def _age(moment: datetime | None) -> timedelta:
    return datetime.now(UTC) - moment if moment is not None else timedelta()
