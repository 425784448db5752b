"""A process that delivers is killed in the middle of it: the next one delivers each statement once, and whole."""

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tollhouse.admin.v1 import deliveries_pb2 as pb
from tollhouse_server.api.services.chargeback_service import ChargebackService
from tollhouse_server.documents.mail import MailServer
from tollhouse_server.settings import Settings
from tollhouse_server.wiring.documents import ways_of

from tests.drivers.books import Books
from tests.drivers.post import Post
from tests.drivers.postgres import TestDatabase
from tests.drivers.sick_store import open_sick_store
from tests.integration.api.callers import ROBOT, by
from tests.integration.chargeback.test_close import closed
from tests.integration.documents.test_deliveries import CFO, due_now, listed, schedule, service_of

NAMES = {f"statement-acme-2026-05-en.{suffix}" for suffix in ("json", "html")}


@asynccontextmanager
async def delivering(place: TestDatabase, settings: dict[str, Any], *arguments: str) -> AsyncIterator[Process]:
    """Run a process that delivers; it is killed at the end, should it still run."""
    environment = {f"TOLLHOUSE_{name.upper()}": str(value) for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.drivers.deliverer", place.app_dsn, *arguments),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(fact: Callable[[], object], process: Process) -> None:
    """Wait until something is so, while the process lives."""
    async with asyncio.timeout(60):
        while not fact():
            assert process.returncode is None
            await asyncio.sleep(0.01)


async def deliver(place: TestDatabase, settings: dict[str, Any], way: str) -> None:
    """Deliver what is due, in a process that ends by itself."""
    async with delivering(place, settings, way) as process:
        assert await process.wait() == 0


async def prepared(books: Books, chargeback: ChargebackService, settings: dict[str, Any], **wanted: Any) -> Any:
    """Close a month for which there is a schedule; return the service that tells of deliveries."""
    ways = ways_of(Settings(**settings))
    service = service_of(books, ways)
    await service.create_delivery_schedule(schedule(**wanted), by(ROBOT))
    await closed(books, chargeback)
    return service


async def test_files_of_a_killed_process_are_there_once_and_whole(
    books: Books, chargeback: ChargebackService, fresh_database: TestDatabase, tmp_path: Path
) -> None:
    """Nobody who collects them by their names sees half of one in between."""
    settings = {"delivery_dir": tmp_path}
    service = await prepared(books, chargeback, settings)
    async with delivering(fresh_database, settings, "FOLDER", "stops") as process:
        await until(lambda: list(tmp_path.rglob(".*.part")), process)
    place = tmp_path / "acme" / "monthly" / "2026-05"
    between = [path.name for path in place.iterdir() if not path.name.startswith(".")]

    await due_now(books)
    await deliver(fresh_database, settings, "FOLDER")

    (delivery,) = await listed(service)
    assert (between, delivery.state, delivery.attempts) == ([], pb.Delivery.STATE_DELIVERED, 2)
    assert {path.name for path in place.iterdir() if not path.name.startswith(".")} == NAMES
    assert (place / "statement-acme-2026-05-en.html").read_text().rstrip().endswith("</html>")


async def test_objects_of_a_killed_process_are_there_once_and_whole(
    books: Books, chargeback: ChargebackService, fresh_database: TestDatabase
) -> None:
    """Killed with one put and the next on its way: what is put again is the same."""
    with open_sick_store() as store:
        settings = {
            "delivery_bucket": "statements",
            "delivery_bucket_endpoint": store.endpoint,
            "delivery_bucket_access_key_id": "key",
            "delivery_bucket_secret_key": "secret",
        }
        service = await prepared(books, chargeback, settings, to_folder=False, to_bucket=True)
        store.hangs_from = 2
        async with delivering(fresh_database, settings, "BUCKET") as process:
            await until(lambda: len(store.puts) == 2, process)
        between = dict(store.taken)

        store.hangs_from = 0
        await due_now(books)
        await deliver(fresh_database, settings, "BUCKET")

        (delivery,) = await listed(service)
        assert (len(between), delivery.state, delivery.attempts) == (1, pb.Delivery.STATE_DELIVERED, 2)
        assert {path.rpartition("/")[2] for path in store.taken} == NAMES
        assert between.items() <= store.taken.items()


def has_messages(handler: Post, count: int) -> bool:
    """Tell whether so many messages have arrived."""
    return len(handler.messages) == count


def mail_settings(server: MailServer) -> dict[str, Any]:
    """Return a server as the settings of a process describe it."""
    return {
        "smtp_host": server.host,
        "smtp_port": server.port,
        "smtp_security": "none",
        "smtp_sender": server.sender,
    }


async def test_an_e_mail_of_a_process_killed_before_the_answer_goes_once_more_with_its_id(
    books: Books, chargeback: ChargebackService, fresh_database: TestDatabase, post: tuple[Post, MailServer]
) -> None:
    """The server had it, and nobody heard: twice at most, and receivers can tell."""
    handler, server = post
    settings = mail_settings(server)
    service = await prepared(books, chargeback, settings, to_folder=False, recipients=[CFO])
    handler.thinks_seconds = 60
    async with delivering(fresh_database, settings, "MAIL") as process:
        await until(lambda: handler.messages, process)

    handler.thinks_seconds = 0
    for _ in range(3):
        await due_now(books)
        await deliver(fresh_database, settings, "MAIL")

    (delivery,) = await listed(service)
    first, second = handler.messages
    assert (delivery.state, delivery.attempts) == (pb.Delivery.STATE_DELIVERED, 2)
    assert first["Message-ID"] == second["Message-ID"]
    assert len([part for part in second.walk() if part.get_filename()]) == len(NAMES)


async def test_an_e_mail_whose_processes_are_killed_twice_waits_for_somebody(
    books: Books, chargeback: ChargebackService, fresh_database: TestDatabase, post: tuple[Post, MailServer]
) -> None:
    """A third one is not sent."""
    handler, server = post
    settings = mail_settings(server)
    service = await prepared(books, chargeback, settings, to_folder=False, recipients=[CFO])
    handler.thinks_seconds = 60
    for count in (1, 2):
        async with delivering(fresh_database, settings, "MAIL") as process:
            await until(partial(has_messages, handler, count), process)
        await due_now(books)

    await deliver(fresh_database, settings, "MAIL")

    (delivery,) = await listed(service)
    assert (delivery.state, len(handler.messages)) == (pb.Delivery.STATE_FAILED, 2)
    assert "handed over twice" in delivery.fault
