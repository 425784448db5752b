"""What a report is made of: dimensions to split by, sums, and lines. Money is integer nano-dollars."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import TypeAlias

UNITEMISED = "unitemised"
"""The SKU of cost that has no priced lines: a call in suspense is booked at its ceiling, not by what it used."""


class Dimension(StrEnum):
    """Something that usage can be split by."""

    DEPARTMENT = "department"
    DEPARTMENT_PATH = "department_path"
    """The department that was charged with those above it then, the root first: ids."""

    PROJECT = "project"
    CREDENTIAL = "credential"
    TIER = "tier"
    MODEL = "model"
    DAY = "day"
    SKU = "sku"


Keys: TypeAlias = Mapping[Dimension, str | date]
"""A value for each dimension: departments and projects by resource name, days as dates, the rest by their ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Usage added up. `calls` are settled or in suspense; `suspense_*` is the part whose outcome is still unknown.

    `cached_tokens` and `tool_use_tokens` are part of `input_tokens`, `thoughts_tokens` of `output_tokens`.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    images: int = 0
    cost_nanos: int = 0
    suspense_calls: int = 0
    suspense_nanos: int = 0
    cached_tokens: int = 0
    tool_use_tokens: int = 0
    thoughts_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The sums of one combination of dimensions."""

    keys: Keys
    sums: Sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one combination of dimensions cost, for `calls` that have a part in it; `quantity` is 0 without SKU."""

    keys: Keys
    calls: int
    cost_nanos: int
    quantity: int = 0
