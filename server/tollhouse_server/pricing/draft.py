"""Price files drafted from the data of the package `genai-prices`, as it is installed: nothing is fetched."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

from tollhouse_server.pricing.price_text import price_file_text
from tollhouse_server.pricing.public_prices import Note, lists_of, unmapped
from tollhouse_server.pricing.terms import PriceBook, PriceList

_PACKAGE: Final = "genai-prices"
_PROVIDER: Final = "google"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A price file to look at, empty where the source says nothing new, and what is not taken as it stands there."""

    content: str
    notes: tuple[Note, ...]
    source_version: str


async def draft_prices(book: PriceBook, models: Sequence[str]) -> Draft:
    """Return a file with what the package says otherwise than the book; `models` empty means all of the book's."""
    # The package's data are a large module: read once, and not while calls wait.
    google = await asyncio.to_thread(_google)
    return draft_from(google, book, models, source_version=f"{_PACKAGE} {version(_PACKAGE)}")


def draft_from(provider: Any, book: PriceBook, models: Iterable[str], *, source_version: str) -> Draft:
    """Return the draft from a provider of the package; pure."""
    wanted = sorted(set(models) or {one.model for one in book.lists()})
    found = {model: provider.find_model(model) for model in wanted}
    notes = list(unmapped(model for model, public in found.items() if public is None))
    lists: list[PriceList] = []
    for model, public in found.items():
        if public is not None:
            made, said = lists_of(model, public, book.history(model), source=f"{source_version}: {public.id}")
            lists += made
            notes += said
    comments = (
        f"Drafted from {source_version} over version {book.version} of the price book. What the source does not cover",
        "is the book's. Days begin in America/Los_Angeles, where Google changes prices at midnight.",
    )
    content = price_file_text(lists, note=f"drafted from {source_version}", comments=comments) if lists else ""
    return Draft(content=content, notes=tuple(notes), source_version=source_version)


def _google() -> Any:
    providers = import_module("genai_prices.data").providers
    return next(provider for provider in providers if provider.id == _PROVIDER)
