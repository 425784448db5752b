"""The SQL of rotations and of the states of keys that they change. Every function works in its caller's transaction.

Locks are taken in one order: the rotation, its keys, the epoch.
"""

from collections.abc import Sequence
from datetime import date
from uuid import uuid4

from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tollhouse_server.audit.store import record
from tollhouse_server.audit.tables import AuditEventRow
from tollhouse_server.custody.tables import KeyRotationRow
from tollhouse_server.custody.terms import BEFORE_PROMOTION, Cause, KeyPolicy, Kind, Outcome, Step
from tollhouse_server.database.epochs import Topic, bump
from tollhouse_server.database.rows import run_sql
from tollhouse_server.errors import ResourceNotFound, RotationUnderWay, WrongState
from tollhouse_server.names import PLATFORM, KeyRotationName, UpstreamKeyName
from tollhouse_server.routing.tables import UpstreamKeyRow

HOUSEKEEPER = "housekeeper"

# A new key that is refused while the old one is out of use is not waited for.
_CLAIM = """
UPDATE key_rotation SET fence = fence + 1, leased_until = now() + make_interval(secs => :lease_seconds)
WHERE rotation_id = (
    SELECT r.rotation_id FROM key_rotation r
    LEFT JOIN upstream_key n ON n.account_id = r.account_id AND n.key_id = r.new_key_id
    WHERE r.ended_at IS NULL AND r.leased_until <= now()
      AND (r.next_at <= now()
           OR (r.step IN ('OVERLAP', 'DRAIN') AND r.kind = 'ROTATION' AND n.state IS DISTINCT FROM 'ACTIVE'))
    ORDER BY r.next_at, r.rotation_id LIMIT 1 FOR UPDATE OF r SKIP LOCKED
)
RETURNING rotation_id
"""

_MOVE = """
UPDATE key_rotation
SET step = :step, outcome = :outcome, remark = :remark, error = :error, tries = 0, step_at = now(), updated_at = now(),
    leased_until = now(), next_at = now() + make_interval(secs => :wait_seconds),
    ended_at = CASE WHEN :ended THEN now() END
WHERE rotation_id = :rotation_id AND fence = :fence AND step = :expected AND ended_at IS NULL
"""

_PUT_OFF = """
UPDATE key_rotation
SET error = :error, tries = tries + 1, updated_at = now(), leased_until = now(),
    next_at = now() + make_interval(secs => :wait_seconds)
WHERE rotation_id = :rotation_id AND fence = :fence AND ended_at IS NULL
"""

_SET_STATE = """
UPDATE upstream_key SET state = :state, version = version + 1, updated_at = now()
WHERE account_id = :account_id AND key_id = :key_id AND state = ANY(:from_states)
"""

# Keys of servers of one's own do not grow old, unless a policy says otherwise.
_OVERDUE = """
FROM upstream_key k JOIN account a USING (account_id) LEFT JOIN key_policy p USING (account_id)
WHERE a.state = 'ACTIVE' AND k.state = 'ACTIVE' AND (p.account_id IS NOT NULL OR a.kind <> 'openai_compatible')
  AND k.created_at <= now() - make_interval(days => coalesce(p.rotation_period_days, :default_days))
"""

_COUNT_OVERDUE = f"SELECT count(*) AS keys {_OVERDUE}"

_DUE = f"""
SELECT k.account_id, k.key_id {_OVERDUE}
  AND NOT EXISTS (
      SELECT FROM key_rotation r
      WHERE r.account_id = k.account_id AND (r.old_key_id = k.key_id OR r.new_key_id = k.key_id)
        AND (r.ended_at IS NULL OR (r.outcome <> 'SUCCEEDED' AND r.ended_at > now() - interval '1 day'))
  )
ORDER BY k.created_at LIMIT 100
"""  # noqa: S608 - two constants

# Where somebody else issues keys, only a rotation that was begun for this key in this very transaction takes it.
_BRING = """
UPDATE key_rotation
SET new_key_id = :key_id, step = 'PROBE', error = '', tries = 0, fence = fence + 1, step_at = now(), updated_at = now(),
    leased_until = now(), next_at = now()
WHERE rotation_id = :rotation_id AND ended_at IS NULL AND step = 'STAGE'
  AND (provider = 'MANUAL' OR (fence = 0 AND created_at = now()))
"""

_CANCEL = """
UPDATE key_rotation
SET step = 'ROLL_BACK', outcome = 'CANCELLED', error = '', step_at = now(), updated_at = now(), next_at = now()
WHERE rotation_id = :rotation_id
"""

# A key that was never written down, or is out of use for good: nothing may use it any more.
_ENDED_NEW_KEYS = """
SELECT DISTINCT r.new_key_id
FROM key_rotation r LEFT JOIN upstream_key k ON k.account_id = r.account_id AND k.key_id = r.new_key_id
WHERE r.account_id = :account_id AND r.kind = 'ROTATION' AND r.ended_at < now() - interval '1 minute'
  AND (k.key_id IS NULL OR k.state IN ('RETIRED', 'REVOKED'))
"""

# Any constant that no other advisory lock of Tollhouse uses: spells "keys".
_LEADER_LOCK = 0x6B657973

WAITS_FOR_PERSON = "waits for a person to bring the new key"


class Overtaken(Exception):
    """Another process has taken the rotation over, or a person has changed it: nothing of this step holds."""


async def start(
    session: AsyncSession, key: UpstreamKeyRow, *, kind: Kind, cause: Cause, actor: str, policy: KeyPolicy, today: date
) -> KeyRotationRow:
    """Open a rotation or revocation of a key, which the caller has locked; the audit row is the caller's.

    Raises:
        RotationUnderWay: there is one already.
    """
    running = await open_rotation(session, key.account_id, key.key_id)
    if running is not None and (kind is Kind.ROTATION or running.kind == Kind.REVOCATION):
        raise RotationUnderWay(name=key_name(key), rotation=name_of(running))
    unique = f"{today:%Y%m%d}-{uuid4().hex[:8]}"
    row = KeyRotationRow(
        rotation_id=f"rot-{unique}",
        account_id=key.account_id,
        kind=kind.value,
        cause=cause.value,
        provider=policy.provider.value,
        old_key_id=key.key_id,
        new_key_id=f"key-{unique}" if kind is Kind.ROTATION else "",
        step=(Step.STAGE if kind is Kind.ROTATION else Step.RETIRE).value,
        drain_seconds=policy.drain_seconds,
        actor=actor,
    )
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return row


async def claim(session: AsyncSession, *, lease_seconds: float) -> KeyRotationRow | None:
    """Take the next rotation with something to do, for so long, raising its fence; None where there is none."""
    found = (await run_sql(session, _CLAIM, {"lease_seconds": lease_seconds})).first()
    return None if found is None else await session.get(KeyRotationRow, found.rotation_id, populate_existing=True)


async def move(
    session: AsyncSession,
    claimed: KeyRotationRow,
    step: Step,
    *,
    wait_seconds: float = 0.0,
    outcome: Outcome | None = None,
    error: str | None = None,
    remark: str | None = None,
    ended: bool = False,
) -> None:
    """Go on to `step`, or end, and audit it; `outcome` without `ended` is how a roll-back will end.

    Raises:
        Overtaken: the fence was raised or the step changed meanwhile.
    """
    wanted = {
        "step": step.value,
        "outcome": claimed.outcome if outcome is None else outcome.value,
        "error": claimed.error if error is None and step is Step.ROLL_BACK else error or "",
        "remark": claimed.remark if remark is None else remark,
        "wait_seconds": wait_seconds,
        "ended": ended,
        "rotation_id": claimed.rotation_id,
        "fence": claimed.fence,
        "expected": claimed.step,
    }
    if (await run_sql(session, _MOVE, wanted)).rowcount != 1:
        raise Overtaken
    after = {key: wanted[key] for key in ("step", "outcome", "error", "remark") if wanted[key]}
    await record(session, _event(claimed, {"step": claimed.step}, {**after, "ended": ended}))


async def put_off(session: AsyncSession, claimed: KeyRotationRow, *, error: str, wait_seconds: float) -> None:
    """Give the rotation back, to be tried again after a while.

    Raises:
        Overtaken: the fence was raised meanwhile.
    """
    wanted = {"error": error, "wait_seconds": wait_seconds, "rotation_id": claimed.rotation_id, "fence": claimed.fence}
    if (await run_sql(session, _PUT_OFF, wanted)).rowcount != 1:
        raise Overtaken


async def set_state(session: AsyncSession, account_id: str, key_id: str, state: str, *, of: Sequence[str]) -> bool:
    """Bring a key from one of the states `of` to `state` and tell everyone; False where it is in another."""
    wanted = {"account_id": account_id, "key_id": key_id, "state": state, "from_states": list(of)}
    changed = (await run_sql(session, _SET_STATE, wanted)).rowcount == 1
    if changed:
        await bump(session, Topic.ACCOUNTS)
    return changed


async def find_key(session: AsyncSession, account_id: str, key_id: str, *, lock: bool = False) -> UpstreamKeyRow | None:
    """Return a key's metadata as it is now, None where there is none."""
    query = select(UpstreamKeyRow).where(UpstreamKeyRow.account_id == account_id, UpstreamKeyRow.key_id == key_id)
    if lock:
        query = query.with_for_update(key_share=True)
    return (await session.exec(query.execution_options(populate_existing=True))).one_or_none()


async def open_rotation(session: AsyncSession, account_id: str, key_id: str) -> KeyRotationRow | None:
    """Return what works on a key now, as its old or its new one; a revocation before a rotation."""
    query = (
        select(KeyRotationRow)
        .where(
            KeyRotationRow.account_id == account_id,
            col(KeyRotationRow.ended_at).is_(None),
            or_(KeyRotationRow.old_key_id == key_id, KeyRotationRow.new_key_id == key_id),
        )
        .order_by(col(KeyRotationRow.kind))
    )
    return (await session.exec(query)).first()


async def get_rotation(session: AsyncSession, name: KeyRotationName, *, lock: bool = False) -> KeyRotationRow:
    """Return a rotation.

    Raises:
        ResourceNotFound: the account has none of this id.
    """
    query = select(KeyRotationRow).where(
        KeyRotationRow.rotation_id == name.key_rotation, KeyRotationRow.account_id == name.account
    )
    if lock:
        query = query.with_for_update()
    row = (await session.exec(query.execution_options(populate_existing=True))).one_or_none()
    if row is None:
        raise ResourceNotFound(name=str(name))
    return row


async def list_rotations(
    session: AsyncSession, account_id: str, *, before: str = "", size: int = 100
) -> Sequence[KeyRotationRow]:
    """Return up to `size` rotations of an account, newest first, those with ids below `before`."""
    query = select(KeyRotationRow).where(KeyRotationRow.account_id == account_id)
    if before:
        query = query.where(col(KeyRotationRow.rotation_id) < before)
    return (await session.exec(query.order_by(col(KeyRotationRow.rotation_id).desc()).limit(size))).all()


async def open_rotations(session: AsyncSession, account_id: str = "") -> Sequence[KeyRotationRow]:
    """Return everything that is under way, with an account only what is there."""
    query = select(KeyRotationRow).where(col(KeyRotationRow.ended_at).is_(None))
    if account_id:
        query = query.where(KeyRotationRow.account_id == account_id)
    return (await session.exec(query)).all()


async def bring_key(session: AsyncSession, row: KeyRotationRow, key_id: str) -> KeyRotationRow:
    """Let a rotation that waits for a person go on with the key that he has brought.

    Raises:
        RotationUnderWay: it does not wait for one.
    """
    wanted = {"rotation_id": row.rotation_id, "key_id": key_id}
    if (await run_sql(session, _BRING, wanted)).rowcount != 1:
        raise RotationUnderWay(name=str(UpstreamKeyName(row.account_id, row.old_key_id)), rotation=name_of(row))
    await session.refresh(row)
    return row


async def cancel(session: AsyncSession, name: KeyRotationName) -> KeyRotationRow:
    """Have a rotation rolled back whose new key is not in use yet.

    The fence and the lease stay: whoever is at a step ends it first, so that nothing he asks for comes after its end.

    Raises:
        ResourceNotFound: there is none of this name.
        WrongState: its new key is in use, or it has ended.
    """
    row = await get_rotation(session, name, lock=True)
    if row.ended_at is not None or row.step not in BEFORE_PROMOTION:
        raise WrongState(name=str(name), state=row.outcome or row.step, needed="STAGE, PROBE or PROMOTE")
    await run_sql(session, _CANCEL, {"rotation_id": row.rotation_id})
    await session.refresh(row)
    return row


async def lead(session: AsyncSession) -> bool:
    """Tell whether this process is the one that looks for due keys, until its transaction ends."""
    found = await run_sql(session, "SELECT pg_try_advisory_xact_lock(:key) AS held", {"key": _LEADER_LOCK})
    return bool(found.one().held)


async def due_keys(session: AsyncSession, *, default_days: int) -> Sequence[tuple[str, str]]:
    """Return the account and id of up to 100 active keys that are older than their policy allows and left alone."""
    rows = (await run_sql(session, _DUE, {"default_days": default_days})).all()
    return [(row.account_id, row.key_id) for row in rows]


async def count_overdue(session: AsyncSession, *, default_days: int) -> int:
    """Return how many active keys are older than their policy allows, whether they are being rotated or not."""
    return int((await run_sql(session, _COUNT_OVERDUE, {"default_days": default_days})).one().keys)


async def ended_new_keys(session: AsyncSession, account_id: str) -> Sequence[str]:
    """Return the ids of keys that rotations of an account have issued and that nothing may use any more."""
    return [row.new_key_id for row in (await run_sql(session, _ENDED_NEW_KEYS, {"account_id": account_id})).all()]


def name_of(row: KeyRotationRow) -> str:
    """Return the resource name of a rotation."""
    return str(KeyRotationName(row.account_id, row.rotation_id))


def key_name(row: UpstreamKeyRow) -> str:
    """Return the resource name of a key."""
    return str(UpstreamKeyName(row.account_id, row.key_id))


def waits_for_person(row: KeyRotationRow) -> bool:
    """Tell whether nothing but a person can take the rotation on."""
    return row.step == Step.STAGE and row.error == WAITS_FOR_PERSON


def start_event(row: KeyRotationRow) -> AuditEventRow:
    """Return the audit row of a rotation that the system started."""
    return _event(row, {}, {"step": row.step, "cause": row.cause})


def _event(row: KeyRotationRow, before: dict[str, object], after: dict[str, object]) -> AuditEventRow:
    verb = "RotateUpstreamKey" if row.kind == Kind.ROTATION else "RevokeUpstreamKey"
    return AuditEventRow(
        tenant_id=PLATFORM,
        actor=row.actor,
        credential_id="",
        method=f"tollhouse.admin.v1.UpstreamKeyService.{verb}",
        permission="",
        resource=name_of(row),
        before=before,
        after={**after, "oldKey": row.old_key_id, "newKey": row.new_key_id},
        request_id="",
        correlation_id="",
    )
