"""Files of Google's own counts of usage, as Cloud Monitoring has them, read as CSV with a header or as JSON lines."""

import csv
import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from tollhouse.admin.v1 import reconciliation_pb2 as pb

from tollhouse_admin.bill_files import Notation
from tollhouse_admin.failures import wrong_usage

_PACIFIC: Final = ZoneInfo("America/Los_Angeles")
_DAY: Final = ("day", "date", "start_time", "end_time", "timestamp")
_PROJECT: Final = ("google_project", "project_id", "project")
_MODEL: Final = ("model", "model_user_id", "model_id")
_REQUESTS: Final = ("requests", "request_count", "model_invocation_count")
_TOKENS: Final = ("tokens", "token_count")
_PARTS: Final = (("input_tokens", "input_token_count"), ("output_tokens", "output_token_count"))


def read_metrics(path: Path, notation: Notation) -> list[pb.UsageMetric]:
    """Return the counts of a file: a day or a moment, a project, a model, requests, and tokens where it has them.

    Raises:
        Failure: it cannot be read, or a line has not what is needed.
    """
    metrics = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file) if notation is Notation.CSV else (json.loads(line) for line in file if line.strip())
        try:
            for row in rows:
                metrics.append(_metric(row))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            known = "day, google_project, model, requests and, if there are any, tokens"
            raise wrong_usage(f"{path}, entry {len(metrics) + 1}: {error}", f"It takes {known}.") from error
    if not metrics:
        raise wrong_usage(f"{path} has no counts")
    return metrics


def _metric(row: Mapping[str, Any]) -> pb.UsageMetric:
    return pb.UsageMetric(
        day=_day(str(_first(row, _DAY))).isoformat(),
        google_project=str(_first(row, _PROJECT)),
        model=str(_first(row, _MODEL)).rpartition("/")[2],
        requests=_whole(_first(row, _REQUESTS)),
        tokens=_tokens(row),
    )


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if row.get(name) not in (None, ""):
            return row[name]
    raise ValueError(f"there is no {names[0]}")


def _tokens(row: Mapping[str, Any]) -> int | None:
    parts = list(_present(row, _PARTS)) or list(_present(row, (_TOKENS,)))
    return sum(parts) if parts else None


def _present(row: Mapping[str, Any], kinds: tuple[tuple[str, ...], ...]) -> Iterator[int]:
    for names in kinds:
        if any(row.get(name) not in (None, "") for name in names):
            yield _whole(_first(row, names))


def _whole(value: Any) -> int:
    """Return a count; Cloud Monitoring writes some as decimals, such as `12.0`."""
    text = str(value).strip()
    whole, _, fraction = text.partition(".")
    if fraction.strip("0"):
        raise ValueError(f"{text} is not a whole number")
    return int(whole)


def _day(text: str) -> date:
    """Return the day of US Pacific time; a moment without a zone is one of UTC, as Cloud Monitoring has them."""
    if len(text) == len("2026-11-01"):
        return date.fromisoformat(text)
    moment = datetime.fromisoformat(text.replace("Z", "+00:00").replace(" UTC", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo("UTC"))).astimezone(_PACIFIC).date()
