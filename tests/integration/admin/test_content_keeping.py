"""How content gets from a call into the archive, what stops it, and when it leaves by itself."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import orjson
import pytest
from sqlalchemy.exc import DBAPIError
from tollhouse.admin.v1 import contents_pb2 as pb
from tollhouse_server.content import backlog as bounds
from tollhouse_server.content.chores import ContentChores
from tollhouse_server.content.keeping import Recording
from tollhouse_server.errors import ContentNotKept, ResourceNotFound, Unreadable

from tests.drivers.openbao import TestOpenBao
from tests.drivers.postgres import TestDatabase
from tests.integration.admin.archive import ACME, ANSWER, PROMPT, Archive, Caller, reader


async def begun(archive: Archive, *, method: str = "generateContent") -> Recording:
    recording = await archive.keeping.begin(Caller(), request_id=uuid4(), method=method)
    assert recording is not None
    return recording


def settle(recording: Recording) -> str:
    attempt = uuid4()
    recording.settled(attempt_id=attempt, model="gemini", settled_at=datetime.now(UTC), prompt=PROMPT)
    return f"{ACME}/contents/{attempt}"


async def read(archive: Archive, name: str) -> pb.Content:
    content: pb.Content = await archive.plane.call(pb.GetContentRequest(name=name), key=await reader(archive))
    return content


async def test_a_streams_chunks_are_kept_as_one_array(archive: Archive) -> None:
    """As Gemini's REST API answers who does not ask for events."""
    await archive.set_policy()
    recording = await begun(archive, method="streamGenerateContent")
    recording.add(b'{"candidates":[1]}')
    recording.add(b'{"candidates":[2]}')
    name = settle(recording)
    recording.close(is_whole=True)
    await archive.write()

    content = await read(archive, name)

    assert content.answer_json == '[{"candidates":[1]},{"candidates":[2]}]'
    assert not content.answer_truncated


async def test_what_a_caller_heard_before_he_hung_up_is_kept_when_the_call_is_booked(archive: Archive) -> None:
    """The call goes on without him, and is settled after he has gone."""
    await archive.set_policy()
    recording = await begun(archive, method="streamGenerateContent")
    recording.add(b"{}")
    recording.close(is_whole=False)
    waiting_before = len(archive.backlog)
    name = settle(recording)
    await archive.write()

    content = await read(archive, name)

    assert waiting_before == 0
    assert (content.answer_json, content.answer_truncated) == ("[{}]", True)


async def test_a_call_that_was_not_served_leaves_nothing(archive: Archive) -> None:
    """It was never settled."""
    await archive.set_policy()
    recording = await begun(archive)

    recording.close(is_whole=False)

    assert len(archive.backlog) == 0


async def test_large_media_is_known_by_its_digest(archive: Archive) -> None:
    """A picture of a megabyte is not worth its place; a small one is kept."""
    large, small = bytes(1_000_000), b"small"
    parts = [
        {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(media).decode()}} for media in (large, small)
    ]
    await archive.set_policy()
    name = await archive.call(prompt=orjson.dumps({"contents": [{"parts": parts}]}))

    content = await read(archive, name)

    digest = hashlib.sha256(large).hexdigest()
    omitted = {"mimeType": "image/png", "sizeBytes": len(large), "sha256": digest}
    kept = orjson.loads(content.prompt_json)["contents"][0]["parts"]
    assert kept == [{"omittedInlineData": omitted}, parts[1]]


async def test_what_does_not_fit_is_dropped_and_counted(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, and the call itself is served."""
    monkeypatch.setattr(bounds, "MOST_BYTES", 1)
    await archive.set_policy()
    kept, dropped = await begun(archive), await begun(archive)
    for recording in (kept, dropped):
        settle(recording)
        recording.close(is_whole=True)

    await archive.write()

    assert (archive.counted("kept"), archive.counted("dropped")) == (1, 1)


async def test_a_call_that_must_be_kept_is_refused_while_it_cannot_be(
    archive: Archive, openbao: TestOpenBao, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its tenant's key, or while too much waits; else it is served and kept."""
    await archive.set_policy(must_keep=True)
    await openbao.server.seal()
    try:
        with pytest.raises(ContentNotKept) as without_key:
            await begun(archive)
    finally:
        await openbao.server.unseal()
    assert await archive.call() is not None
    monkeypatch.setattr(bounds, "MOST_BYTES", 0)

    with pytest.raises(ContentNotKept) as without_place:
        await begun(archive)

    assert without_key.value.cause == "VAULT_UNAVAILABLE"
    assert "waits" in without_place.value.cause
    assert archive.counted("refused") == 2


async def test_what_cannot_be_sealed_yet_waits(archive: Archive, openbao: TestOpenBao) -> None:
    """Nothing that was taken in is given up for an outage of Vault."""
    await archive.set_policy()
    recording = await begun(archive)
    name = settle(recording)
    recording.add(ANSWER)
    recording.close(is_whole=True)
    batch = await archive.backlog.take()
    await openbao.server.seal()
    try:
        waiting = await archive.writer._write(batch)
    finally:
        await openbao.server.unseal()
    archive.backlog.put_back(waiting)
    await archive.write()

    content = await read(archive, name)

    assert content.answer_json.encode() == ANSWER


async def test_what_the_database_gives_no_key_for_waits_too(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadlock at one tenant's key must not end the process that serves all."""

    async def refuse(*_: object, **__: object) -> bytes:
        raise DBAPIError("SELECT", {}, Exception("deadlock detected"))

    await archive.set_policy()
    recording = await begun(archive)
    settle(recording)
    recording.close(is_whole=True)
    batch = await archive.backlog.take()
    monkeypatch.setattr(archive.keys, "seal", refuse)

    waiting = await archive.writer._write(batch)

    assert waiting == batch


async def test_content_leaves_when_its_time_is_up(archive: Archive) -> None:
    """At once for who reads, and from the table with the next sweep; a shorter retention holds for what is there."""
    await archive.set_policy(retention_days=10)
    now = datetime.now(UTC)
    expired = await archive.call(at=now - timedelta(days=11))
    await archive.call(at=now - timedelta(days=5))
    young = await archive.call(at=now - timedelta(days=1))
    with pytest.raises(ResourceNotFound):
        await read(archive, expired)
    await archive.set_policy(retention_days=3)

    swept = await ContentChores(archive.plane.database, archive.keys).sweep()

    listed = await archive.plane.call(pb.ListContentsRequest(parent=ACME), key=await reader(archive))
    assert swept == 2
    assert [one.name for one in listed.contents] == [young]


async def test_what_nobody_can_read_any_more_is_swept_away(archive: Archive) -> None:
    """Rows that were sealed under a destroyed key are noise."""
    await archive.set_policy()
    await archive.call()
    await archive.plane.call(pb.EraseTenantContentRequest(name=ACME))

    swept = await ContentChores(archive.plane.database, archive.keys).sweep()

    assert swept == 1


async def test_one_calls_content_in_anothers_place_does_not_open(
    archive: Archive, fresh_database: TestDatabase
) -> None:
    """Whoever can write to the table cannot make a reader believe it."""
    await archive.set_policy()
    first, second = await archive.call(), await archive.call(prompt=b"{}")
    connection = await asyncpg.connect(fresh_database.root_dsn)
    await connection.execute(
        "UPDATE kept_content SET prompt = (SELECT prompt FROM kept_content WHERE prompt_bytes = 2)"
    )
    await connection.close()

    assert (await read(archive, second)).prompt_json == "{}"
    with pytest.raises(Unreadable):
        await read(archive, first)
