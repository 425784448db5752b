"""Price files (TOML, or JSON with the same keys): parsed exactly, refused whole with every defect named.

Prices are decimals in dollars per quoted unit (one million tokens, 1,000 queries, one second). From its first date on,
a file's lists for a model replace the model's lists in the book; models it does not name stay as they are. The same
holds for the surcharges of an upstream address.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from tollhouse_server.errors import FieldViolation, PriceFileInvalid
from tollhouse_server.money import MAX_NANOS, NANOS_PER_DOLLAR
from tollhouse_server.pricing.skus import CACHED_SKUS, INPUT_SKUS, LONG, OUTPUT_TEXT, SKUS, THOUGHTS, TOKEN_SKUS
from tollhouse_server.pricing.terms import STANDARD_PERMILLE, PriceList, Surcharge

MAX_PRICE_DOLLARS = Decimal(1_000)
"""No price of Google's is within a factor of five of this; a higher one is a slip of the decimal point."""
MAX_SURCHARGE_PERCENT = Decimal(1_000)
MAX_FILE_BYTES = 1_048_576

_MODEL = re.compile(r"[a-z0-9][a-z0-9.\-]{0,127}")
_DECIMAL = re.compile(r"\d{1,12}(\.\d{1,18})?")
_IMAGE_SIZES = frozenset({"512", "1K", "2K", "4K"})
_SERVICE_TIERS = frozenset({"batch", "flex", "priority"})
SHORTHANDS: Mapping[str, tuple[str, ...]] = {
    "input": tuple(INPUT_SKUS.values()),
    "cached": tuple(CACHED_SKUS.values()),
    "output": (OUTPUT_TEXT, THOUGHTS),
}
_ADDRESS = re.compile(r"[a-z][a-z0-9_-]{1,62}")
_MILLIONTHS_PER_PERCENT = 10_000
_FILE_KEYS = frozenset({"revision", "note", "prices", "surcharges"})
_SURCHARGE_KEYS = frozenset({"endpoint", "effective_from", "percent", "source"})
_LIST_KEYS = frozenset(
    {
        "model",
        "effective_from",
        "source",
        "zero_prices",
        "long_above_tokens",
        "tokens_per_image",
        "service_tiers",
        "cached_service_tiers",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedPriceFile:
    """A price file without defects; its lists are in the order of the file. `digest` is the SHA-256 of its text in hex.

    `free_lists` are the positions of the lists that say that a price of zero in them is meant.
    """

    revision: int
    note: str
    digest: str
    lists: tuple[PriceList, ...]
    surcharges: tuple[Surcharge, ...] = ()
    free_lists: frozenset[int] = frozenset()


def import_prices(text: str) -> ParsedPriceFile:
    """Parse a price file; pure.

    Raises:
        PriceFileInvalid: it has defects; every one is named by the path of its field, and nothing of it is used.
    """
    reader = _Reader()
    document = _parse(text)
    reader.unknown_keys("", document, _FILE_KEYS)
    lists = reader.price_lists(document)
    surcharges = reader.surcharges(document.get("surcharges", []))
    revision = reader.whole("revision", document.get("revision", 0))
    note = reader.text("note", document.get("note", "-"), limit=1_000)
    if reader.violations:
        raise PriceFileInvalid(violations=tuple(reader.violations))
    digest = hashlib.sha256(text.encode()).hexdigest()
    entries = document.get("prices", [])
    return ParsedPriceFile(
        revision=revision,
        note=note,
        digest=digest,
        lists=tuple(lists),
        surcharges=tuple(surcharges),
        free_lists=frozenset(index for index, entry in enumerate(entries) if entry.get("zero_prices")),
    )


def merge(current: Iterable[PriceList], new: Iterable[PriceList]) -> tuple[PriceList, ...]:
    """Return the book that results when a file's lists come over the current ones."""
    new = tuple(new)
    first: dict[str, datetime] = {}
    for one in new:
        first[one.model] = min(one.effective_from, first.get(one.model, one.effective_from))
    kept = [one for one in current if one.model not in first or one.effective_from < first[one.model]]
    return tuple(sorted([*kept, *new], key=lambda one: (one.model, one.effective_from)))


def merge_surcharges(current: Iterable[Surcharge], new: Iterable[Surcharge]) -> tuple[Surcharge, ...]:
    """Return the surcharges that result when a file's come over the current ones."""
    new = tuple(new)
    first: dict[str, datetime] = {}
    for one in new:
        first[one.endpoint] = min(one.effective_from, first.get(one.endpoint, one.effective_from))
    kept = [one for one in current if one.endpoint not in first or one.effective_from < first[one.endpoint]]
    return tuple(sorted([*kept, *new], key=lambda one: (one.endpoint, one.effective_from)))


def _parse(text: str) -> Mapping[str, Any]:
    if len(text.encode()) > MAX_FILE_BYTES:
        raise _invalid("", f"the file is larger than {MAX_FILE_BYTES} bytes")
    try:
        # Numbers stay text until `_Reader.price` reads them as exact decimals: no float on the way.
        if text.lstrip().startswith("{"):
            document = json.loads(text, parse_float=str, parse_constant=str, object_pairs_hook=_without_duplicates)
        else:
            document = tomllib.loads(text, parse_float=str)
    except (ValueError, RecursionError) as error:
        raise _invalid("", f"neither TOML nor JSON: {error}") from None
    if not isinstance(document, dict):
        raise _invalid("", "must be an object")
    return document


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _invalid(twice, "is there twice")
    return dict(pairs)


def _invalid(path: str, description: str) -> PriceFileInvalid:
    return PriceFileInvalid(violations=(FieldViolation(path=path, description=description),))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads fields and collects what is wrong with them."""

    violations: list[FieldViolation] = field(default_factory=list)

    def refuse(self, path: str, description: str) -> None:
        """Note one defect."""
        self.violations.append(FieldViolation(path=path, description=description))

    def unknown_keys(self, path: str, value: Mapping[str, Any], known: Iterable[str]) -> None:
        """Refuse keys that mean nothing here: a misspelt price must not be ignored."""
        for key in sorted(set(value) - set(known)):
            self.refuse(f"{path}.{key}".lstrip("."), "is not a known field")

    def price_lists(self, document: Mapping[str, Any]) -> list[PriceList]:
        """Read all price lists; a file may do without where it has surcharges."""
        entries = document.get("prices", [] if document.get("surcharges") else None)
        if not isinstance(entries, list) or not (entries or document.get("surcharges")):
            self.refuse("prices", "must be a list of at least one price list")
            return []
        read = [self.price_list(f"prices[{index}]", entry) for index, entry in enumerate(entries)]
        self.duplicates(read)
        lists = [one for one in read if one is not None]
        self.gaps(lists)
        return lists

    def surcharges(self, entries: Any) -> list[Surcharge]:
        """Read what upstream addresses cost on top."""
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self.refuse("surcharges", "must be a list of tables")
            return []
        read = [self.surcharge(f"surcharges[{index}]", entry) for index, entry in enumerate(entries)]
        seen: dict[tuple[str, datetime], int] = {}
        for index, one in enumerate(read):
            first = seen.setdefault((one.endpoint, one.effective_from), index)
            if first != index:
                self.refuse(f"surcharges[{index}]", f"repeats the address and date of surcharges[{first}]")
        return read

    def surcharge(self, path: str, entry: Mapping[str, Any]) -> Surcharge:
        """Read one surcharge: a share of the list price in per cent."""
        self.unknown_keys(path, entry, _SURCHARGE_KEYS)
        endpoint = entry.get("endpoint")
        if not isinstance(endpoint, str) or not _ADDRESS.fullmatch(endpoint):
            self.refuse(f"{path}.endpoint", "must be the name of an upstream address such as gemini_api-relay")
        percent = self.decimal(f"{path}.percent", entry.get("percent"))
        share = Decimal(0) if percent is None else percent * _MILLIONTHS_PER_PERCENT
        if share != share.to_integral_value() or share > MAX_SURCHARGE_PERCENT * _MILLIONTHS_PER_PERCENT:
            most = f"{MAX_SURCHARGE_PERCENT} per cent with at most four decimals"
            self.refuse(f"{path}.percent", f"must be from 0 to {most}")
            share = Decimal(0)
        return Surcharge(
            endpoint=str(endpoint),
            effective_from=self.moment(f"{path}.effective_from", entry.get("effective_from")),
            per_million=int(share),
            source=self.text(f"{path}.source", entry["source"]) if "source" in entry else "",
        )

    def price_list(self, path: str, entry: Any) -> PriceList | None:
        """Read one price list; None where it has a defect that leaves nothing to return."""
        if not isinstance(entry, dict):
            self.refuse(path, "must be a table")
            return None
        known_before = len(self.violations)
        priced = {key: value for key, value in entry.items() if key not in _LIST_KEYS}
        one = PriceList(
            model=self.model(f"{path}.model", entry.get("model")),
            effective_from=self.moment(f"{path}.effective_from", entry.get("effective_from")),
            source=self.text(f"{path}.source", entry.get("source")),
            nanos_per_million=self.prices(path, priced),
            long_above_tokens=self.threshold(path, entry),
            tokens_per_image=self.image_sizes(f"{path}.tokens_per_image", entry.get("tokens_per_image", {})),
            tier_permille=self.factors(f"{path}.service_tiers", entry.get("service_tiers", {})),
            cached_tier_permille=self.factors(f"{path}.cached_service_tiers", entry.get("cached_service_tiers", {})),
        )
        if not isinstance(entry.get("zero_prices", False), bool):
            self.refuse(f"{path}.zero_prices", "must be true or false")
        if len(self.violations) == known_before:
            self.completeness(path, one)
        return one if len(self.violations) == known_before else None

    def model(self, path: str, value: Any) -> str:
        """Read a model id."""
        if not isinstance(value, str) or not _MODEL.fullmatch(value):
            self.refuse(path, "must be a model id such as gemini-3.8-flash")
            return ""
        return value

    def text(self, path: str, value: Any, limit: int = 500) -> str:
        """Read a text that is not blank."""
        if not isinstance(value, str) or not value.strip() or len(value) > limit:
            self.refuse(path, f"must be a text of 1 to {limit} characters")
            return ""
        return value

    def whole(self, path: str, value: Any, minimum: int = 0) -> int:
        """Read a whole number."""
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= 2**31:
            self.refuse(path, f"must be a whole number from {minimum} to 2,147,483,648")
            return minimum
        return value

    def moment(self, path: str, value: Any) -> datetime:
        """Read a date (midnight UTC) or a moment with a time zone."""
        epoch = datetime.fromtimestamp(0, UTC)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                value = None
            if value is not None and value.tzinfo is None and value.time() == time():
                value = value.replace(tzinfo=UTC)
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime.combine(value, time(), UTC)
        if not isinstance(value, datetime) or value.tzinfo is None:
            self.refuse(path, "must be a date, or a moment with its time zone")
            return epoch
        if not 2020 <= value.year <= 2100:
            self.refuse(path, "must lie between the years 2020 and 2100")
            return epoch
        return value.astimezone(UTC)

    def prices(self, path: str, fields: Mapping[str, Any]) -> dict[str, int]:
        """Read every price of a list, shorthands spread over their SKUs, into nano-dollars per million units."""
        spread: dict[str, int] = {}
        single: dict[str, int] = {}
        for key, value in fields.items():
            base = key.removesuffix(LONG)
            suffix = LONG if base != key else ""
            if key in SKUS:
                single[key] = self.price(f"{path}.{key}", value, SKUS[key].quote_units)
            elif base in SHORTHANDS:
                nanos = self.price(f"{path}.{key}", value, 1_000_000)
                spread.update({sku + suffix: nanos for sku in SHORTHANDS[base]})
            else:
                self.refuse(f"{path}.{key}", "is not a known field")
        return {**spread, **single}

    def price(self, path: str, value: Any, quote_units: int) -> int:
        """Read one price in dollars per `quote_units` as nano-dollars per million units, exactly."""
        dollars = self.decimal(path, value)
        if dollars is None:
            return 0
        if dollars > MAX_PRICE_DOLLARS:
            self.refuse(path, f"is above {MAX_PRICE_DOLLARS} dollars")
            return 0
        nanos = dollars * NANOS_PER_DOLLAR * 1_000_000 / quote_units
        if nanos != nanos.to_integral_value():
            self.refuse(path, "is finer than a nano-dollar per million units")
            return 0
        return int(min(nanos, Decimal(MAX_NANOS)))

    def decimal(self, path: str, value: Any) -> Decimal | None:
        """Read a plain decimal that is not negative: text, or a bare number whose digits are kept as written."""
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and value.startswith("-") and _DECIMAL.fullmatch(value[1:]):
            self.refuse(path, "must not be negative")
            return None
        if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
            self.refuse(path, 'must be a plain decimal such as "0.075"')
            return None
        return Decimal(value)

    def threshold(self, path: str, entry: Mapping[str, Any]) -> int | None:
        """Read the long-context threshold, which must be there exactly when `_long` prices are."""
        has_long = any(key.endswith(LONG) for key in entry)
        if "long_above_tokens" not in entry:
            if has_long:
                self.refuse(f"{path}.long_above_tokens", "is required beside _long prices")
            return None
        if not has_long:
            self.refuse(f"{path}.long_above_tokens", "means nothing without _long prices")
        return self.whole(f"{path}.long_above_tokens", entry["long_above_tokens"], 1)

    def image_sizes(self, path: str, value: Any) -> dict[str, int]:
        """Read tokens per generated image by size."""
        if not isinstance(value, dict):
            self.refuse(path, "must be a table")
            return {}
        self.unknown_keys(path, value, _IMAGE_SIZES)
        return {size: self.whole(f"{path}.{size}", tokens, 1) for size, tokens in value.items() if size in _IMAGE_SIZES}

    def factors(self, path: str, value: Any) -> dict[str, int]:
        """Read service tiers' factors as thousandths."""
        if not isinstance(value, dict):
            self.refuse(path, "must be a table")
            return {}
        self.unknown_keys(path, value, _SERVICE_TIERS)
        factors: dict[str, int] = {}
        for tier in sorted(set(value) & _SERVICE_TIERS):
            factor = self.decimal(f"{path}.{tier}", value[tier])
            permille = None if factor is None else factor * STANDARD_PERMILLE
            if permille is not None and (permille != permille.to_integral_value() or not 1 <= permille <= 10_000):
                self.refuse(f"{path}.{tier}", "must be a factor from 0.001 to 10 with at most three decimals")
            elif permille is not None:
                factors[tier] = int(permille)
        return factors

    def completeness(self, path: str, one: PriceList) -> None:
        """Refuse a list that leaves a use of the model without a price, or whose factors make no whole price."""
        nanos = one.nanos_per_million
        if not nanos:
            self.refuse(path, "has no price")
        if OUTPUT_TEXT in nanos and INPUT_SKUS[next(iter(INPUT_SKUS))] not in nanos:
            self.refuse(f"{path}.input_text", "is missing beside a price of output")
        if any(sku.startswith("output_") and sku in TOKEN_SKUS for sku in nanos) and OUTPUT_TEXT not in nanos:
            self.refuse(f"{path}.output_text", "is missing beside another price of output")
        if OUTPUT_TEXT in nanos and THOUGHTS not in nanos:
            self.refuse(f"{path}.thoughts", "is missing beside a price of output")
        if one.long_above_tokens is not None:
            for sku in (sku for sku in TOKEN_SKUS if (sku in nanos) != (sku + LONG in nanos)):
                self.refuse(f"{path}.{sku}", "must be priced both below and above long_above_tokens")
        self._whole_factors(path, one)

    def _whole_factors(self, path: str, one: PriceList) -> None:
        factors = {*one.tier_permille.values(), *one.cached_tier_permille.values()}
        for sku in TOKEN_SKUS:
            for name in (sku, sku + LONG):
                price = one.nanos_per_million.get(name, 0)
                if any(price * factor % STANDARD_PERMILLE for factor in factors):
                    self.refuse(f"{path}.{name}", "times a service tier's factor is no whole nano-dollar per million")

    def duplicates(self, lists: list[PriceList | None]) -> None:
        """Refuse two lists of one model for one moment, however the moment is written."""
        seen: dict[tuple[str, datetime], int] = {}
        for index, one in enumerate(lists):
            if one is None:
                continue
            first = seen.setdefault((one.model, one.effective_from), index)
            if first != index:
                self.refuse(f"prices[{index}]", f"repeats the model and date of prices[{first}]")

    def gaps(self, lists: list[PriceList]) -> None:
        """Refuse a model's later list that leaves without a price what an earlier one priced."""
        latest: dict[str, PriceList] = {}
        for one in sorted(lists, key=lambda one: (one.model, one.effective_from)):
            earlier = latest.get(one.model)
            lost = set(earlier.nanos_per_million) - set(one.nanos_per_million) if earlier else set()
            for sku in sorted(lost):
                day = one.effective_from.date().isoformat()
                self.refuse(f"{one.model}.{sku}", f"is priced before {day} and has no price from then on")
            latest[one.model] = one
