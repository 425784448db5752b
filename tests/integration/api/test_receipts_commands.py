"""`tollhouse receipts` before the real services: what it writes can be checked, and goes on where it stopped."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tollhouse_admin.__main__ import execute
from tollhouse_admin.commands import receipts as commands
from tollhouse_server.api.services.receipts_service import ReceiptService
from tollhouse_server.api.services.usage_service import UsageService
from tollhouse_server.ledger.terms import CallTerms, RecordKind
from tollhouse_server.vault.signing import Purpose, SigningKey

from tests.drivers.books import Books, settlement
from tests.drivers.receipts import KEY, KeyInMemory, write_keys
from tests.integration.api.callers import PAGES, by
from tests.integration.api.test_receipts_service import LINES, book
from tests.unit.admin_cli.canned import CannedServer, canned_server

Handler = Callable[[Any, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class Desk:
    """The command line, in a directory of its own, before services that run in the test's loop."""

    directory: Path
    canned: CannedServer
    key: KeyInMemory
    captured: pytest.CaptureFixture[str]

    async def __call__(self, *arguments: str) -> Ended:
        """Run a command."""
        self.captured.readouterr()
        code = await asyncio.to_thread(execute, arguments)
        said = self.captured.readouterr()
        return Ended(code, said.out, said.err)

    def read(self, name: str) -> str:
        """Return what is in a file of the directory."""
        return (self.directory / name).read_text()

    def write(self, name: str, text: str) -> None:
        """Make a file in the directory."""
        (self.directory / name).write_text(text)

    def files_in(self, name: str) -> list[str]:
        """Return the names of the files in a directory of the directory."""
        return [path.name for path in (self.directory / name).iterdir()]

    def attempts_in(self, name: str) -> list[str]:
        """Return the attempts of a file of receipts, sorted."""
        documents = (json.loads(json.loads(line)["document"]) for line in self.read(name).splitlines())
        return sorted(document["attempt_id"] for document in documents)

    def serve(self, name: str, handler: Handler) -> None:
        """Have the services' loop answer calls of a method."""
        loop = asyncio.get_running_loop()

        async def answered(request: Any) -> Any:
            return await handler(request, by())

        self.canned.answers[name] = lambda request: asyncio.run_coroutine_threadsafe(answered(request), loop).result(10)

    def cut_off_after(self, pages: int) -> None:
        """Answer no more than so many further requests for signatures."""
        sign: Any = self.canned.answers["SignReceipts"]
        left = iter(range(pages))

        def answer(request: Any) -> Any:
            next(left)
            return sign(request)

        self.canned.answers["SignReceipts"] = answer


@pytest.fixture
def canned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CannedServer]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    with canned_server() as server:
        monkeypatch.setenv("TOLLHOUSE_ENDPOINT", server.target)
        monkeypatch.setenv("TOLLHOUSE_API_KEY", "th_live_abcdefgh2345_verysecretpart")
        yield server


@pytest.fixture
async def desk(
    books: Books,
    canned: CannedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> AsyncIterator[Desk]:
    """The books of tenant acme; exports ask for three records at a time."""
    await books.add_tenant()
    monkeypatch.setattr(commands, "_PAGE_RECORDS", 3)
    key = KeyInMemory()
    desk = Desk(tmp_path, canned, key, capsys)
    receipts = ReceiptService(books.database, SigningKey(key, KEY, purpose=Purpose.RECEIPTS))
    desk.serve("ListUsageRecords", UsageService(books.database, PAGES).list_usage_records)
    desk.serve("GetCallReceipt", receipts.get_call_receipt)
    desk.serve("SignReceipts", receipts.sign_receipts)
    desk.serve("GetReceiptKeys", receipts.get_receipt_keys)
    yield desk


def ids_of(calls: Sequence[CallTerms]) -> list[str]:
    return sorted(str(call.attempt_id) for call in calls)


async def a_month_of_calls(books: Books) -> list[CallTerms]:
    """Book seven calls, one of them settled after its suspense, and one more that was refused."""
    late = await books.suspend(cost_nanos=100)
    calls = [await book(books) for _ in range(6)]
    await books.book(kind=RecordKind.REFUSED)
    await books.process.ledger.settle(late, settlement(60, lines=LINES))
    return [late.terms, *calls]


async def test_one_receipt_is_shown_and_its_json_can_be_verified(books: Books, desk: Desk) -> None:
    """With the keys that the command line wrote, and no server."""
    call = await book(books)

    shown = await desk("receipts", "get", str(call.request_id))
    desk.write("one.json", (await desk("receipts", "get", str(call.attempt_id), "-o", "json")).out)
    desk.write("keys.json", (await desk("receipts", "keys", "-o", "json")).out)
    desk.canned.answers.clear()
    verified = await desk("receipts", "verify", "--keys", "keys.json", "one.json")

    assert "input_text" in shown.out
    assert "$0.00000006" in shown.out
    assert (verified.code, verified.err) == (0, "1 valid; the valid ones come to $0.00000006\n")
    assert verified.out.split() == ["1", "valid", str(call.attempt_id), "$0.00000006"]


async def test_keys_are_shown_by_their_fingerprints(desk: Desk) -> None:
    """What two people compare before they trust a file of keys."""
    desk.key.rotate()

    shown = await desk("receipts", "keys")

    assert [line.split()[:3] for line in shown.out.splitlines()[1:]] == [
        [KEY, "1", "Ed25519"],
        [KEY, "2", "Ed25519"],
    ]
    assert "for receipts of tenants/acme" in shown.err


async def test_an_export_has_each_call_of_the_month_once(books: Books, desk: Desk) -> None:
    """A corrected call by its last state, a refused one not at all; one signature for a page."""
    calls = await a_month_of_calls(books)

    ended = await desk("receipts", "export", "--month", "this", "--file", "out/receipts.jsonl")
    keys = write_keys(desk.directory / "keys.json", desk.key)
    verified = await desk("receipts", "verify", "--keys", str(keys), "out/receipts.jsonl", "-o", "json")

    told = json.loads(verified.out)
    assert (ended.code, verified.code) == (0, 0), ended.err + verified.err
    assert desk.attempts_in("out/receipts.jsonl") == ids_of(calls)
    assert told["summary"]["valid"] == len(told["findings"]) == 7
    assert {finding["costNanos"] for finding in told["findings"]} == {"60"}
    assert desk.key.signatures == 3
    assert "7 receipts" in ended.err
    assert "no receipt" not in ended.err
    assert desk.files_in("out") == ["receipts.jsonl"]


async def test_an_export_that_was_cut_off_goes_on(books: Books, desk: Desk) -> None:
    """Nothing is signed twice, nothing is missing, nothing is there twice; calls booked meanwhile are of the next."""
    calls = await a_month_of_calls(books)
    command = ("receipts", "export", "--from", "1h", "--file", "receipts.jsonl")
    sign = desk.canned.answers["SignReceipts"]
    desk.cut_off_after(1)
    cut_off = await desk(*command)
    desk.canned.answers["SignReceipts"] = sign
    desk.write("receipts.jsonl.part", desk.read("receipts.jsonl.part") + '{"document": "half of one')
    await book(books)
    other = await desk("receipts", "export", "--from", "2h", "--file", "receipts.jsonl")

    ended = await desk(*command)
    again = await desk(*command)

    assert cut_off.code == 1
    assert not other.out
    assert "unfinished export of something else" in other.err
    assert ended.err.startswith("going on behind 2 receipts")
    assert desk.attempts_in("receipts.jsonl") == ids_of(calls)
    assert desk.key.signatures == 3
    assert (again.code, "is there already" in again.err) == (2, True)


async def test_what_was_changed_in_a_file_is_named_and_is_not_counted(books: Books, desk: Desk) -> None:
    """Exit code 1, whatever else is valid."""
    for _ in range(3):
        await book(books)
    await desk("receipts", "export", "--month", "this", "--file", "receipts.jsonl")
    lines = desk.read("receipts.jsonl").splitlines()
    lines[1] = lines[1].replace('\\"cost_nanos\\":60', '\\"cost_nanos\\":50', 1)
    desk.write("receipts.jsonl", "\n".join([*lines, "and something else"]))
    keys = write_keys(desk.directory / "keys.json", desk.key)

    text, table, as_json = [
        await desk("receipts", "verify", "receipts.jsonl", "--keys", str(keys), "-o", form)
        for form in ("table", "csv", "json")
    ]

    assert [ended.code for ended in (text, table, as_json)] == [1, 1, 1]
    assert [line.split()[1] for line in text.out.splitlines()] == ["valid", "forged", "valid", "forged"]
    assert "2 forged, 2 valid; the valid ones come to $0.00000012" in text.err
    assert "error: RECEIPTS_NOT_VALID: 2 of 4 receipts are not valid" in text.err
    assert table.out.splitlines()[2].startswith("2,forged,0")
    assert [finding["verdict"] for finding in json.loads(as_json.out)["findings"]] == ["valid", "forged"] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("export", "--file", "x"), "Give --month"),
        (("export", "--file", "x", "--month", "this", "--from", "7d"), "Give --month"),
        (("export", "--file", "x", "--month", "this", "--to", "1d"), "does not go with --to"),
        (("verify", "--keys", "none.json", "receipts.jsonl"), "none.json: No such file"),
        (("verify", "--keys", "receipts.jsonl", "receipts.jsonl"), "is not a file of receipt keys"),
    ],
)
async def test_a_command_that_cannot_be_carried_out_says_why(
    desk: Desk, arguments: tuple[str, ...], words: str
) -> None:
    """In one line, before anything is asked of the server."""
    desk.write("receipts.jsonl", "{}\n")

    ended = await desk("receipts", *arguments)

    assert ended.code == 2
    assert words in ended.err
    assert desk.canned.received == []


async def test_nothing_in_a_file_steers_the_terminal(desk: Desk) -> None:
    """A forged attempt id is shown without its control characters."""
    evil = {"attempt_id": "\x1b[2Jgone", "version": "x"}
    proof = {"treeSize": 1, "leafIndex": 0, "path": []}
    signature = {"algorithm": "Ed25519", "key": "\x1b]0;mine\x07", "keyVersion": 1, "value": ""}
    receipt = {"document": json.dumps(evil), **proof, "signature": signature}
    desk.write("receipts.jsonl", json.dumps(receipt) + "\n")
    keys = write_keys(desk.directory / "keys.json", desk.key)

    said = [
        await desk("receipts", "verify", "receipts.jsonl", "--keys", str(keys), "-o", form) for form in ("table", "csv")
    ]

    assert all("unknown key" in ended.out for ended in said)
    assert all("\x1b" not in ended.out + ended.err for ended in said)
