"""Secrets in memory that no log, error or debugger print can show by accident."""

import hmac
from collections.abc import Iterator, Mapping
from typing import NoReturn, final

MASK = "***"


@final
class SecretText:
    """One secret string. Only `reveal` gives it out; `str`, `repr` and formatting give `***`, pickling is refused."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Wrap `text`."""
        self._text = text

    def reveal(self) -> str:
        """Return the secret itself: for the one call that needs it."""
        return self._text

    def __repr__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        if not isinstance(other, SecretText):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    # A hash in a set or a dict would compare by prefix timing, and nothing needs it.
    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")


@final
class SecretFields(Mapping[str, str]):
    """The fields of one secret, and its version in Vault. Values are plain strings; printing shows the names only."""

    __slots__ = ("_values", "version")

    def __init__(self, values: Mapping[str, str], *, version: int) -> None:
        """Take a copy of `values`."""
        self._values = dict(values)
        self.version = version

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"SecretFields(version={self.version}, {', '.join(f'{name}={MASK}' for name in self._values)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")
