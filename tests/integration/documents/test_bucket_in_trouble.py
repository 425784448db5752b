"""Statements into a bucket of a store that is unwell: each failure is one of its delivery, told, bounded and safe."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from tollhouse_server.documents.bucket import Bucket, BucketFailed
from tollhouse_server.documents.document import Document

from tests.drivers.sick_store import SickStore, open_sick_store

PLACE = ("acme", "monthly", "2026-05")
OBJECT = "/statements/acme/monthly/2026-05/statement.csv"
CONTENT = b"x" * 1_000_000
DOCUMENTS = [Document(file_name="statement.csv", media_type="text/csv", content=CONTENT)]


@pytest.fixture
def store() -> Iterator[SickStore]:
    """A store that takes everything until it falls ill."""
    with open_sick_store() as opened:
        yield opened


def bucket_of(store: SickStore) -> Bucket:
    """Return the store's bucket."""
    return Bucket(endpoint=store.endpoint, name="statements", access_key_id="the key", secret_access_key="the secret")


@pytest.mark.parametrize(
    ("ails", "told", "tries"),
    [
        (500, "500 Internal Server Error: Unwell", 3),
        (503, "503 Service Unavailable: Unwell", 3),
        (429, "429 Too Many Requests: Unwell", 3),
        (404, "404 Not Found: Unwell", 1),
        (301, "301 Moved Permanently", 1),
        (307, "307 Temporary Redirect", 1),
        ("cut", "", None),
        ("hangs up", "error sending request", 3),
        ("nonsense", "error sending request", 1),
        ("a page", "ETag Header missing", 1),
    ],
)
async def test_what_a_store_in_trouble_answers_is_told_and_goes_nowhere_else(
    store: SickStore, ails: int | str, told: str, tries: int | None
) -> None:
    """A redirect is not followed: the statement would go to whoever sends it. What may pass is tried thrice."""
    store.ails = ails

    with pytest.raises(BucketFailed, match=r"^statements/acme/monthly/2026-05/statement.csv: .+") as caught:
        await bucket_of(store).put(PLACE, DOCUMENTS)

    assert told in str(caught.value)
    assert "the key" not in str(caught.value)
    assert store.endpoint not in str(caught.value)
    assert set(store.puts) == {OBJECT}
    assert tries in (None, len(store.puts))
    assert store.taken == {}


async def test_a_store_that_hangs_is_left(store: SickStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that a document of its size may take, once: a second wait would be as long."""
    monkeypatch.setattr("tollhouse_server.documents.bucket._TIMEOUT", timedelta(seconds=0.2))
    monkeypatch.setattr("tollhouse_server.documents.bucket._SLOWEST_BYTES_A_SECOND", 10 * len(CONTENT))
    store.ails = "hangs"

    with pytest.raises(BucketFailed):
        await bucket_of(store).put(PLACE, DOCUMENTS)

    assert store.puts == [OBJECT]


async def test_a_large_document_has_longer_than_a_small_one(store: SickStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow way what takes its time still arrives, whole."""
    monkeypatch.setattr("tollhouse_server.documents.bucket._TIMEOUT", timedelta(seconds=0.2))
    monkeypatch.setattr("tollhouse_server.documents.bucket._SLOWEST_BYTES_A_SECOND", len(CONTENT) // 30)
    store.ails, store.pause_seconds = "slow", 0.05

    await bucket_of(store).put(PLACE, DOCUMENTS)

    assert store.taken == {OBJECT: CONTENT}
