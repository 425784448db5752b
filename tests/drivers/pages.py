"""Lists that are read to their end, page by page."""

from collections.abc import Awaitable, Callable
from typing import Any


async def all_pages(ask: Callable[[Any], Awaitable[Any]], request: Any, entries: str) -> list[Any]:
    """Return what the field `entries` of all pages has, of the size that the request says."""
    found: list[Any] = []
    while True:
        page = await ask(request)
        found += getattr(page, entries)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token
