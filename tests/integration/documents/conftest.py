"""The books of acme with a month that is over, and a mail server on this machine."""

from collections.abc import AsyncIterator, Iterator

import pytest
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.services.chargeback_service import ChargebackService
from tollhouse_server.documents.mail import MailServer
from tollhouse_server.vault.signing import Purpose, SigningKey

from tests.drivers.books import Books
from tests.drivers.post import Post, open_post
from tests.drivers.receipts import KEY, KeyInMemory
from tests.integration.api.callers import PAGES
from tests.integration.chargeback.test_close import MAY


@pytest.fixture
def post() -> Iterator[tuple[Post, MailServer]]:
    """A mail server on this machine."""
    with open_post() as handler:
        server = MailServer(
            host="127.0.0.1",
            port=handler.port,
            sender="tollhouse@host.example",
            security="none",
            domains=("acme.example",),
        )
        yield handler, server


@pytest.fixture
async def chargeback(books: Books) -> AsyncIterator[ChargebackService]:
    """The books of acme, with a month that is over."""
    await books.add_tenant()
    await books.book(60, at=MAY)
    key = SigningKey(KeyInMemory(), KEY, purpose=Purpose.STATEMENTS)
    yield ChargebackService(books.database, Mutations(books.database, b"fingerprints"), PAGES, key)
