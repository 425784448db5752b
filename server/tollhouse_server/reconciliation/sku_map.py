"""What Google's SKUs are in Tollhouse's words: rules from files, with dates; see `sku_map.toml` for the notation."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from importlib import resources
from typing import Any, Final

import re2

from tollhouse_server.errors import FieldViolation, InvalidRequest

MAX_FILE_BYTES: Final = 262_144

_RULE_KEYS: Final = frozenset({"id", "description", "pattern", "model", "sku", "ignore", "from", "until"})
_PLACES: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a SKU of Google's stands for: a model and a SKU of the price book. `ignored` ones are none of ours."""

    model: str = ""
    sku: str = ""
    ignored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SkuRule:
    """One rule; `starts` and `ends` (exclusive) bound the days it holds for. `pattern` is of RE2, in linear time."""

    sku_id: str
    pattern: Any
    model: str
    sku: str
    ignored: bool
    starts: date
    ends: date


@dataclass(frozen=True, slots=True, kw_only=True)
class _Service:
    name: str
    only_mapped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SkuMap:
    """All rules in the order in which they are asked."""

    rules: tuple[SkuRule, ...]
    services: Mapping[str, _Service] = field(default_factory=dict)
    words: Mapping[tuple[str, str], str] = field(default_factory=dict)
    folds: Mapping[str, str] = field(default_factory=dict)

    def target(self, *, service_id: str, service: str, sku_id: str, sku: str, day: date) -> Target | None:
        """Return what a line of the bill is for; None where no rule knows the SKU of a service that is ours."""
        known = self.services.get(service_id) or self.services.get(_plain(service))
        for rule in self.rules:
            if rule.starts <= day < rule.ends and (found := self._try(rule, sku_id, _plain(sku))) is not None:
                return found
        return Target(ignored=True) if known is None or known.only_mapped else None

    def folded(self, name: str) -> str:
        """Return the model or SKU that stands for one of Tollhouse's own in a comparison."""
        return self.folds.get(name, name)

    def over(self, below: "SkuMap") -> "SkuMap":
        """Return the map in which this one's rules come first."""
        return SkuMap(
            rules=(*self.rules, *below.rules),
            services={**below.services, **self.services},
            words={**below.words, **self.words},
            folds={**below.folds, **self.folds},
        )

    def _try(self, rule: SkuRule, sku_id: str, sku: str) -> Target | None:
        caught: Mapping[str, str] = {}
        if rule.pattern is not None:
            match = rule.pattern.fullmatch(sku)
            if match is None:
                return None
            caught = {name: self._word(name, text or "") for name, text in match.groupdict().items()}
        elif rule.sku_id != sku_id:
            return None
        if rule.ignored:
            return Target(ignored=True)
        model = _filled(rule.model, caught).replace(" ", "-")
        return Target(model=self.folded(model), sku=self.folded(_filled(rule.sku, caught)))

    def _word(self, group: str, text: str) -> str:
        return self.words.get((group, text), text)


@cache
def packaged_map() -> SkuMap:
    """Return the rules that Tollhouse comes with."""
    return parse_map(resources.files(__package__).joinpath("sku_map.toml").read_text("utf-8"))


def parse_map(text: str) -> SkuMap:
    """Parse a file of rules; pure.

    Raises:
        InvalidRequest: it has defects; every one is named by the path of its field.
    """
    reader = _Reader()
    document = _document(text)
    parsed = SkuMap(
        rules=tuple(reader.rule(f"rule[{index}]", one) for index, one in enumerate(_tables(document, "rule"))),
        services=dict(reader.services(_tables(document, "service"))),
        words=dict(reader.words(_tables(document, "words"))),
        folds=dict(reader.folds(_tables(document, "fold"))),
    )
    for name in document.keys() - {"rule", "service", "words", "fold"}:
        reader.refuse(name, "is not a known table")
    if reader.violations:
        raise InvalidRequest(violations=tuple(reader.violations))
    return parsed


def _document(text: str) -> dict[str, Any]:
    if len(text.encode()) > MAX_FILE_BYTES:
        raise _invalid("content", f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid("content", f"is not TOML: {error}") from None


def _tables(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = document.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise _invalid(name, "must be a list of tables")
    return found


def _invalid(path: str, description: str) -> InvalidRequest:
    return InvalidRequest(violations=(FieldViolation(path=path, description=description),))


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text.lower()).strip()


def _filled(template: str, caught: Mapping[str, str]) -> str:
    return _PLACES.sub(lambda place: caught.get(place[1], ""), template)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads tables and collects what is wrong with them."""

    violations: list[FieldViolation] = field(default_factory=list)

    def refuse(self, path: str, description: str) -> None:
        """Note one defect."""
        self.violations.append(FieldViolation(path=path, description=description))

    def rule(self, path: str, entry: Mapping[str, Any]) -> SkuRule:
        """Read a rule."""
        for name in sorted(entry.keys() - _RULE_KEYS):
            self.refuse(f"{path}.{name}", "is not a known field")
        ways = [name for name in ("id", "description", "pattern") if entry.get(name)]
        if len(ways) != 1:
            self.refuse(path, "needs one of id, description and pattern")
        is_ignored = entry.get("ignore", False) is True
        model, sku = self._text(path, entry, "model"), self._text(path, entry, "sku")
        if not is_ignored and not (model and sku):
            self.refuse(path, "needs model and sku, or ignore = true")
        return SkuRule(
            sku_id=self._text(path, entry, "id"),
            pattern=self._pattern(path, entry),
            model=model,
            sku=sku,
            ignored=is_ignored,
            starts=self._day(path, entry, "from", date.min),
            ends=self._day(path, entry, "until", date.max),
        )

    def services(self, entries: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, _Service]]:
        """Read services, under their ids and descriptions."""
        for index, entry in enumerate(entries):
            description = self._text(f"service[{index}]", entry, "description")
            found = _Service(name=description, only_mapped=entry.get("only_mapped", False) is True)
            yield from ((key, found) for key in (self._text("", entry, "id"), _plain(description)) if key)

    def words(self, entries: Iterable[Mapping[str, Any]]) -> Iterable[tuple[tuple[str, str], str]]:
        """Read translations."""
        for index, entry in enumerate(entries):
            path = f"words[{index}]"
            for text in self._texts(path, entry, "of"):
                yield (self._text(path, entry, "group"), text), self._text(path, entry, "is")

    def folds(self, entries: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
        """Read what is billed as one."""
        for index, entry in enumerate(entries):
            for kind in ("skus", "models"):
                names = self._texts(f"fold[{index}]", entry, kind)
                yield from ((name, names[0]) for name in names)

    def _text(self, path: str, entry: Mapping[str, Any], name: str) -> str:
        value = entry.get(name, "")
        if not isinstance(value, str) or len(value) > 1_000:
            self.refuse(f"{path}.{name}", "must be a text of at most 1000 characters")
            return ""
        return value

    def _texts(self, path: str, entry: Mapping[str, Any], name: str) -> list[str]:
        value = entry.get(name, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            self.refuse(f"{path}.{name}", "must be a list of texts")
            return []
        return value

    def _pattern(self, path: str, entry: Mapping[str, Any]) -> Any:
        description, pattern = self._text(path, entry, "description"), self._text(path, entry, "pattern")
        if not (description or pattern):
            return None
        try:
            return re2.compile(pattern or re2.escape(_plain(description)))
        except re2.error as error:
            self.refuse(f"{path}.pattern", f"is not a regular expression: {error}")
            return None

    def _day(self, path: str, entry: Mapping[str, Any], name: str, absent: date) -> date:
        value = entry.get(name, absent)
        if type(value) is not date:
            self.refuse(f"{path}.{name}", "must be a date such as 2026-12-01")
            return absent
        return value
