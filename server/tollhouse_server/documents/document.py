"""A document on its way: its bytes under a name."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document as a file: its name without a place."""

    file_name: str
    media_type: str
    content: bytes
