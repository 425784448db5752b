"""Ways to tamper with a stored trail as an administrator of the database could, and to undo them; seeded."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncpg

_TABLES = ("audit_event", "audit_head", "audit_checkpoint")
_COLUMNS = (
    *("actor", "credential_id", "method", "permission", "resource", "request_id", "correlation_id", "kind", "outcome"),
    *(
        "reason",
        "count",
        "occurred_at",
        "started_at",
        "before",
        "after",
        "personal",
        "sealed_by",
        "sealed",
        "commitment",
    ),
    *("previous", "hash", "sequence"),
)
_VALUES = {
    "count": "count + 1",
    "kind": "CASE kind WHEN 'ACT' THEN 'PERMISSION_DENIED' ELSE 'ACT' END",
    "outcome": "CASE outcome WHEN 'SUCCESS' THEN 'FAILURE' ELSE 'SUCCESS' END",
    "personal": "CASE personal WHEN 'NONE' THEN 'LEFT_OUT' ELSE 'NONE' END",
    "occurred_at": "occurred_at + interval '1 second'",
    "started_at": "coalesce(started_at, occurred_at) - interval '1 second'",
    "before": """'{"x": 1}'""",
    "after": """'{"x": 1}'""",
    "sealed": r"'\x0102'",
    "commitment": "sha256('x')",
    "previous": "sha256('x')",
    "hash": "sha256('x')",
    "sequence": "sequence + 1000",
}


CHECKPOINT_CHANGES = (
    "hash = sha256('x')",
    "sequence = sequence - 1, first_sequence = 1",
    "document = replace(document, '\"number\":', '\"number\":1')",
    "document = '{'",
    "document = '[]'",
    "signature = sha512('x')",
    "tree_size = tree_size + 1",
    "tree_size = -1",
    "leaf_index = -1",
    "path = ARRAY[NULL]::bytea[]",
    "key_version = 7",
)


@dataclass(frozen=True, slots=True)
class StoredTrail:
    """A trail of tenant acme with `events` events, all signed and anchored, and its owner's connection."""

    owner: "asyncpg.Connection[asyncpg.Record]"
    events: int
    checkpoints: int

    async def keep(self) -> None:
        """Remember everything as it is."""
        for table in _TABLES:
            await self.owner.execute(f"CREATE TABLE genuine_{table} AS SELECT * FROM {table}")  # noqa: S608

    async def restore(self) -> None:
        """Bring everything back."""
        async with self.owner.transaction():
            await self.owner.execute("SET LOCAL session_replication_role = replica")
            for table in _TABLES:
                await self.owner.execute(f"DELETE FROM {table}")  # noqa: S608
                await self.owner.execute(
                    f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM genuine_{table}"  # noqa: S608
                )

    async def tamper(self, statements: Sequence[str]) -> None:
        """Run statements as the owner of everything, with all triggers off."""
        async with self.owner.transaction():
            await self.owner.execute("SET LOCAL session_replication_role = replica")
            for statement in statements:
                await self.owner.execute(statement)


Tamper = Callable[[random.Random, StoredTrail], Sequence[str]]


def edited(chance: random.Random, trail: StoredTrail) -> Sequence[str]:
    """One column of one event says something else."""
    column, sequence = chance.choice(_COLUMNS), chance.randint(1, trail.events)
    value = _VALUES.get(column, f"{column} || 'x'")
    return [f"UPDATE audit_event SET {column} = {value} WHERE tenant_id = 'acme' AND sequence = {sequence}"]  # noqa: S608


def edited_and_hashed(chance: random.Random, trail: StoredTrail) -> Sequence[str]:
    """An event says something else, and its hash is made anew."""
    where = f"WHERE tenant_id = 'acme' AND sequence = {chance.randint(1, trail.events)}"
    return [
        f"UPDATE audit_event SET actor = 'al' {where}",  # noqa: S608
        f"UPDATE audit_event e SET hash = audit_hash(audit_line(e)) {where}",  # noqa: S608
    ]


def deleted(chance: random.Random, trail: StoredTrail) -> Sequence[str]:
    """Some events are gone."""
    first = chance.randint(1, trail.events)
    last = min(trail.events, first + chance.choice([0, 0, 3, 100]))
    return [f"DELETE FROM audit_event WHERE tenant_id = 'acme' AND sequence BETWEEN {first} AND {last}"]  # noqa: S608


def _head_at(sequence: int) -> str:
    hash_there = f"SELECT hash FROM audit_event WHERE tenant_id = 'acme' AND sequence = {sequence}"  # noqa: S608
    beginning = "decode(repeat('00', 32), 'hex')"
    values = f"sequence = {sequence}, hash = coalesce(({hash_there}), {beginning})"
    return f"UPDATE audit_head SET {values} WHERE tenant_id = 'acme'"  # noqa: S608


def cut_off(chance: random.Random, trail: StoredTrail) -> Sequence[str]:
    """The last events are gone, and the head says so too."""
    last = chance.randint(0, trail.events - 1)
    return [
        f"DELETE FROM audit_event WHERE tenant_id = 'acme' AND sequence > {last}",  # noqa: S608
        _head_at(last),
    ]


def reordered(chance: random.Random, trail: StoredTrail) -> Sequence[str]:
    """Two events have changed places."""
    one, other = chance.sample(range(1, trail.events + 1), 2)
    swap = "UPDATE audit_event SET sequence = {} WHERE tenant_id = 'acme' AND sequence = {}"
    return [swap.format(-1, one), swap.format(one, other), swap.format(other, -1)]


def foreign(chance: random.Random, trail: StoredTrail) -> Sequence[str]:
    """An event of another tenant has taken the place of one."""
    sequence = chance.randint(1, trail.events)
    return [
        f"DELETE FROM audit_event WHERE tenant_id = 'acme' AND sequence = {sequence}",  # noqa: S608
        f"UPDATE audit_event SET tenant_id = 'acme' WHERE tenant_id = 'bolt' AND sequence = {sequence}",  # noqa: S608
    ]


def _relinked(actor: str, start: int, *, sequences: str) -> list[str]:
    """Link everything from some event on anew, with the product's own functions."""
    return [
        f"CREATE TEMP TABLE moved ON COMMIT DROP AS SELECT * FROM audit_event WHERE tenant_id = 'acme'"  # noqa: S608
        f" AND sequence >= {start} AND {sequences}",
        f"DELETE FROM audit_event WHERE tenant_id = 'acme' AND sequence >= {start}",  # noqa: S608
        f"UPDATE moved SET actor = '{actor}' WHERE sequence = {start}",  # noqa: S608
        _head_at(start - 1),
        "INSERT INTO audit_event OVERRIDING SYSTEM VALUE SELECT (m).* FROM (SELECT moved AS m FROM moved) x",
        "DO $$ DECLARE e audit_event; BEGIN FOR e IN SELECT * FROM audit_event WHERE tenant_id = 'acme'"  # noqa: S608
        f" AND sequence >= {start} ORDER BY sequence LOOP PERFORM audit_link(e, e.occurred_at); END LOOP; END $$",
    ]


def rewritten(chance: random.Random, trail: StoredTrail) -> Sequence[str]:
    """From one event on everything is linked anew, the head too."""
    return _relinked("al", chance.choice([1, chance.randint(1, trail.events)]), sequences="true")


def removed_and_relinked(chance: random.Random, trail: StoredTrail) -> Sequence[str]:
    """One event is gone, and everything behind it is linked anew."""
    start = chance.randint(1, trail.events - 1)
    return _relinked("al", start, sequences=f"sequence <> {start + chance.randint(0, 1)}")


def rewritten_with_checkpoints(chance: random.Random, trail: StoredTrail) -> Sequence[str]:
    """Everything is linked anew, and the checkpoints in the database say so: only the anchor knows better."""
    return [
        *_relinked("al", 1, sequences="true"),
        "UPDATE audit_checkpoint c SET document = replace(c.document, encode(c.hash, 'hex'), encode(e.hash, 'hex')),"
        " hash = e.hash FROM audit_event e"
        " WHERE c.tenant_id = 'acme' AND e.tenant_id = 'acme' AND e.sequence = c.sequence",
    ]


def checkpoint_edited(chance: random.Random, trail: StoredTrail) -> Sequence[str]:
    """A checkpoint says something else."""
    change = chance.choice(CHECKPOINT_CHANGES)
    number = chance.randint(1, trail.checkpoints)
    return [f"UPDATE audit_checkpoint SET {change} WHERE tenant_id = 'acme' AND number = {number}"]  # noqa: S608


def checkpoint_deleted(chance: random.Random, trail: StoredTrail) -> Sequence[str]:
    """A checkpoint is gone, or all of them."""
    which = chance.choice(["true", f"number = {chance.randint(1, trail.checkpoints)}"])
    return [f"DELETE FROM audit_checkpoint WHERE tenant_id = 'acme' AND {which}"]  # noqa: S608


def emptied(chance: random.Random, trail: StoredTrail) -> Sequence[str]:
    """There never was anything."""
    return [f"DELETE FROM {table}" for table in chance.sample(_TABLES, chance.randint(1, 3))]  # noqa: S608


TAMPERS: tuple[Tamper, ...] = (
    *(edited, edited, edited, edited_and_hashed, deleted, cut_off, reordered, foreign, rewritten, removed_and_relinked),
    *(rewritten_with_checkpoints, checkpoint_edited, checkpoint_deleted, emptied),
)
