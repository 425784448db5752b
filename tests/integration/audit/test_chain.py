"""How PostgreSQL links events when their transactions commit."""

import asyncio
import json

import asyncpg
from tollhouse_server.audit import store
from tollhouse_server.audit.chain import BEGINNING, Walk, hash_of
from tollhouse_server.audit.store import Question
from tollhouse_server.database.engine import Database
from tollhouse_server.database.epochs import Topic, bump
from tollhouse_server.database.roles import AS_CONTROL

from tests.drivers.postgres import TestDatabase
from tests.integration.audit.conftest import event, links_of, write


def _walk() -> Walk:
    return Walk(sequence=0, hash=BEGINNING, signed={})


async def test_each_event_is_linked_to_the_one_before(database: Database) -> None:
    """Without gaps, by the hash of the line, whatever characters it has."""
    for number in range(3):
        await write(database, event("acme", number))

    links = await links_of(database, "acme")

    assert [link.sequence for link in links] == [1, 2, 3]
    assert [link.previous for link in links] == [BEGINNING, links[0].hash, links[1].hash]
    assert [link.hash for link in links] == [hash_of(link.line) for link in links]


async def test_the_line_is_an_ocsf_event(database: Database) -> None:
    """API Activity of OCSF 1.6.0, one line of JSON, with what Tollhouse adds among the unmapped."""
    await write(database, event("acme", 7))

    (link,) = await links_of(database, "acme")

    line = json.loads(link.line)
    assert "\n" not in link.line
    assert (line["class_uid"], line["category_uid"], line["type_uid"], line["activity_id"]) == (6003, 6, 600303, 3)
    assert line["metadata"]["version"] == "1.6.0"
    assert (line["metadata"]["tenant_uid"], line["metadata"]["sequence"]) == ("acme", 1)
    assert line["activity_name"] == "UpdateProject"
    assert line["actor"]["user"] == {"uid": "tenants/acme/principals/jo", "credential_uid": "abcdefghijkl"}
    assert line["unmapped"]["before"] == {"labels": {"größe": '"\\\n\t\u0001 😀'}, "n": 7}
    assert line["time"] == line["unmapped"]["time_micros"] // 1000


async def test_each_tenant_has_a_chain_of_its_own(database: Database) -> None:
    """Their numbers do not mix."""
    await write(database, event("acme"), event("bolt"), event("acme"))

    assert [link.sequence for link in await links_of(database, "acme")] == [1, 2]
    assert [link.sequence for link in await links_of(database, "bolt")] == [1]


async def test_acts_at_once_leave_one_chain_and_do_not_block_each_other_for_ever(database: Database) -> None:
    """On one tenant and on two, some bump epochs before their event and some after it."""

    async def act(number: int) -> None:
        tenant = "acme" if number % 3 else "bolt"
        topics = (Topic.ACCESS, Topic.IDENTITY)
        async with database.within("platform") as session:
            for topic in topics if number % 2 else ():
                await bump(session, topic)
            await store.record(session, event(tenant, number))
            for topic in () if number % 2 else topics:
                await bump(session, topic)

    await asyncio.gather(*(act(number) for number in range(60)))

    for tenant, count in (("acme", 40), ("bolt", 20)):
        walk = _walk()
        walk.take(await links_of(database, tenant))
        assert (walk.sequence, walk.breaks) == (count, [])


async def test_what_is_rolled_back_leaves_no_gap(database: Database) -> None:
    """A number is taken at the commit, not before."""

    class Stop(Exception):
        pass

    try:
        async with database.within("acme") as session:
            await store.record(session, event("acme"))
            raise Stop
    except Stop:
        pass
    await write(database, event("acme"))

    assert [link.sequence for link in await links_of(database, "acme")] == [1]


async def test_the_application_cannot_choose_a_place_in_the_chain(
    database: Database, fresh_database: TestDatabase
) -> None:
    """Number, time and hash are PostgreSQL's, whatever an INSERT says, and nobody moves the head."""
    connection = await asyncpg.connect(fresh_database.app_dsn, server_settings=dict(AS_CONTROL))
    await connection.execute(
        "INSERT INTO audit_event (tenant_id, actor, credential_id, method, permission, resource, request_id,"
        " correlation_id, sequence, hash, occurred_at)"
        " VALUES ('acme', 'x', '', 'm', '', 'r', '', '', 99, '\\x00', '2001-01-01')"
    )
    refused = [
        "UPDATE audit_head SET sequence = 0",
        "DELETE FROM audit_head",
        "UPDATE audit_checkpoint SET sequence = 0",
        "DELETE FROM audit_checkpoint",
        "SELECT audit_link(e, now()) FROM audit_event e",
        "UPDATE audit_event SET hash = '\\x00'",
    ]
    for statement in refused:
        try:
            await connection.execute(statement)
        except asyncpg.InsufficientPrivilegeError:
            continue
        raise AssertionError(statement)
    await connection.close()

    (link,) = await links_of(database, "acme")

    assert (link.sequence, link.hash) == (1, hash_of(link.line))
    assert json.loads(link.line)["time"] > 1_700_000_000_000


async def test_a_walk_finds_what_was_changed_in_the_table(database: Database, fresh_database: TestDatabase) -> None:
    """Edited, deleted, put in another place."""
    for number in range(5):
        await write(database, event("acme", number))
    owner = await asyncpg.connect(fresh_database.root_dsn)
    edits = {
        "UPDATE audit_event SET actor = 'x' WHERE sequence = 2": [2],
        "UPDATE audit_event SET after = '{}' WHERE sequence = 5": [5],
        "DELETE FROM audit_event WHERE sequence = 3": [4],
        "UPDATE audit_event SET sequence = 9 - sequence WHERE sequence IN (4, 5)": [4, 4, 5, 5],
    }
    for edit, places in edits.items():
        async with owner.transaction():
            savepoint = owner.transaction()
            await savepoint.start()
            if "9 - sequence" in edit:
                await owner.execute("DROP INDEX audit_event_sequence")
            await owner.execute(edit)
            rows = await owner.fetch(
                "SELECT sequence, audit_line(e) AS line, previous, hash, sealed_by, sealed, commitment"
                " FROM audit_event e WHERE tenant_id = 'acme' ORDER BY sequence"
            )
            await savepoint.rollback()
        walk = _walk()
        walk.take([store.Link(**dict(row)) for row in rows])
        assert [one.sequence for one in walk.breaks] == places, edit
    await owner.close()


async def test_questions_narrow_what_is_read(database: Database) -> None:
    """By actor, method, resource and what is below it, outcome, and place in the chain."""
    await write(
        database,
        event("acme", 1),
        event("acme", 2, actor="other", method="tollhouse.admin.v1.TenantService.GetTenant"),
        event("acme", 3, outcome="FAILURE", kind="PERMISSION_DENIED"),
    )

    async def found(**question: object) -> list[int]:
        async with database.within("acme") as session:
            links = await store.read_links(session, "acme", Question(**question), size=10)  # type: ignore[arg-type]
        return [link.sequence for link in links]

    assert await found(actor="other") == [2]
    assert await found(method="UpdateProject") == [1, 3]
    assert await found(method="tollhouse.admin.v1.TenantService.GetTenant") == [2]
    assert await found(resource="tenants/acme/departments/rnd/projects/p-1") == [1]
    assert await found(resource="tenants/acme/departments/rn") == []
    assert await found(resource="tenants/acme") == [1, 2, 3]
    assert await found(kind="ACT", after=1) == [2]
    assert await found(before=3) == [1, 2]
