"""Statements into a bucket, of a real object store on this machine that checks signatures and rights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tollhouse_server.documents.bucket import Bucket, BucketFailed
from tollhouse_server.documents.document import Document
from tollhouse_server.settings import Settings
from tollhouse_server.wiring.documents import ways_of

from tests.drivers.object_store import NAME, ObjectStore, open_object_store

PLACE = ("acme", "monthly", "2026-05")
DOCUMENTS = [
    Document(file_name="statement.csv", media_type="text/csv; charset=utf-8", content="部门".encode()),
    Document(file_name="statement.pdf", media_type="application/pdf", content=bytes(range(256)) * 4_000),
]


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    """An object store with one bucket."""
    with open_object_store() as opened:
        yield opened


def bucket_of(store: ObjectStore, **changes: Any) -> Bucket:
    """Return the bucket as the settings describe it."""
    values: dict[str, Any] = {"endpoint": store.endpoint, "name": NAME, "region": "us-east-1", "prefix": "/finance/"}
    values |= {"access_key_id": store.access_key_id, "secret_access_key": store.secret_access_key}
    return Bucket(**(values | changes))


async def test_documents_are_objects_below_a_prefix_and_the_same_again(store: ObjectStore) -> None:
    """With their media types, of a megabyte too, written with a key that may do nothing but put."""
    for _ in range(2):
        await bucket_of(store).put(PLACE, DOCUMENTS)

    assert store.objects() == {
        f"finance/acme/monthly/2026-05/{one.file_name}": (one.media_type, one.content) for one in DOCUMENTS
    }


_WRONG: tuple[tuple[dict[str, str], str], ...] = (
    ({"secret_access_key": "not the secret"}, "403 Forbidden: SignatureDoesNotMatch"),
    ({"access_key_id": "AKIANOBODY"}, "403 Forbidden: InvalidAccessKeyId"),
    ({"name": "of-another"}, "403 Forbidden: AccessDenied"),
    ({"endpoint": "http://127.0.0.1:1"}, "error sending request"),
)


@pytest.mark.parametrize(("changes", "told"), _WRONG)
async def test_what_is_not_taken_is_told_without_a_secret(
    store: ObjectStore, changes: dict[str, str], told: str
) -> None:
    """A wrong secret, key or bucket, and a store that is not there: each is an error of its delivery."""
    store.check_signatures()
    bucket = bucket_of(store, **changes)

    with pytest.raises(BucketFailed) as caught:
        await bucket.put(PLACE, DOCUMENTS)

    assert told in str(caught.value)
    assert bucket.secret_access_key not in f"{caught.value} {bucket!r}"


def test_the_secret_comes_from_a_file_and_a_bucket_without_one_is_refused(tmp_path: Path) -> None:
    """Before the first delivery is due, and with the settings that are missing."""
    (tmp_path / "secret").write_text("of the file\n")
    given: dict[str, Any] = {"delivery_bucket": "b", "delivery_bucket_access_key_id": "k"}

    ways = ways_of(Settings(**given, delivery_bucket_secret_key_file=tmp_path / "secret"))
    with pytest.raises(ValueError, match="TOLLHOUSE_DELIVERY_BUCKET_SECRET_KEY_FILE"):
        Settings(**given)
    with pytest.raises(ValueError, match="https"):
        Settings(delivery_bucket_endpoint="http://store.example")

    assert ways.bucket is not None
    assert ways.bucket.secret_access_key == "of the file"
