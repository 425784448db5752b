"""What others answer over HTTP, read no further than anybody can use it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp


async def body_of(answer: "aiohttp.ClientResponse", *, most_bytes: int) -> bytes:
    """Return the body of an answer, cut off after `most_bytes`.

    Raises:
        aiohttp.ClientError, TimeoutError: it did not come to its end.
    """
    body = bytearray()
    # Each read returns what has arrived, which may be a part.
    while len(body) < most_bytes and (part := await answer.content.read(most_bytes - len(body))):
        body += part
    return bytes(body)
