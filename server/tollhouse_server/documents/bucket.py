"""Statements into a bucket of an object store that speaks S3: Amazon's, Google's with HMAC keys, MinIO and others."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from tollhouse_server.documents.document import Document

_TIMEOUT: Final = timedelta(seconds=60)
_SLOWEST_BYTES_A_SECOND: Final = 500_000
"""A way that carries less is as good as none; the FOCUS file of a large company takes six minutes on it."""

_MOST_RETRIES: Final = 2
_MOST_SAID: Final = 300
_STATUS: Final = re.compile(r"status code: (\d{3} [A-Za-z ]+)")
_CODE: Final = re.compile(r"<Code>(\w+)</Code>")


class BucketFailed(OSError):
    """The object store cannot be reached, or did not take an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A bucket and the key that may write to it; `prefix` goes before the names of all objects."""

    endpoint: str
    name: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str = "auto"
    prefix: str = ""

    def longest(self, documents: Sequence[Document]) -> timedelta:
        """Return how long it may take to put documents, one after the other; what is tried again comes to it."""
        size_bytes = sum(len(document.content) for document in documents)
        return len(documents) * _TIMEOUT + timedelta(seconds=size_bytes / _SLOWEST_BYTES_A_SECOND)

    async def put(self, place: Sequence[str], documents: Sequence[Document]) -> None:
        """Put documents at a place made of ids. Each is whole or not there, and again the same.

        Raises:
            BucketFailed: one was not taken.
        """
        for document in documents:
            store = self._opened(self.longest([document]))
            key = "/".join((*self.prefix.strip("/").split("/"), *place, document.file_name)).lstrip("/")
            try:
                # Not in parts: one request is signed with the digest of all that it carries.
                attributes = {"Content-Type": document.media_type}
                await obstore.put_async(store, key, document.content, attributes=attributes, use_multipart=False)
            except (BaseError, OSError) as error:
                raise BucketFailed(f"{self.name}/{key}: {self._reason(str(error))}") from error

    def _opened(self, timeout: timedelta) -> S3Store:
        return S3Store(
            self.name,
            endpoint=self.endpoint,
            region=self.region,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            virtual_hosted_style_request=False,
            client_options={"timeout": timeout, "allow_http": self.endpoint.startswith("http://")},
            retry_config={"max_retries": _MOST_RETRIES, "retry_timeout": _TIMEOUT},
        )

    def _reason(self, text: str) -> str:
        """Return the store's status and code, or what kept it from answering.

        Its whole answer names the access key; and where the store is, is not for tenants.
        """
        status, code = _STATUS.search(text), _CODE.search(text)
        if status is None:
            return text.partition("\n\nDebug source")[0].replace(self.endpoint, "the store")[-_MOST_SAID:]
        return f"{status[1]}: {code[1]}" if code else status[1]
