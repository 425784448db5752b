"""Data policies on the wire and in here."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from tollhouse.admin.v1 import data_policies_pb2 as pb

from tollhouse_server.api.values import timestamp
from tollhouse_server.dlp.custom import PatternRefused, compile_pattern
from tollhouse_server.dlp.detector import Detector
from tollhouse_server.dlp.detectors import members
from tollhouse_server.dlp.policy import (
    CUSTOM_PREFIX,
    Action,
    DataException,
    DataPolicy,
    DataRule,
    DigestKey,
    Direction,
    NamedPattern,
)
from tollhouse_server.dlp.tables import DataFindingRow
from tollhouse_server.errors import FieldViolation, InvalidRequest
from tollhouse_server.names import DepartmentName

DIRECTIONS: Final[Mapping[int, Direction]] = MappingProxyType(
    {pb.DATA_DIRECTION_PROMPT: Direction.PROMPT, pb.DATA_DIRECTION_ANSWER: Direction.ANSWER}
)
_DIRECTION_NUMBERS: Final = {direction: number for number, direction in DIRECTIONS.items()}


def policy_message(policy: DataPolicy) -> pb.DataPolicy:
    """Return what a policy says, without a name; values of exceptions are nowhere to be had."""
    return pb.DataPolicy(
        rules=[
            pb.DataRule(
                detectors=rule.detectors,
                directions=[_direction_number(one) for one in rule.directions],
                action=action_number(rule.action),
            )
            for rule in policy.rules
        ],
        patterns=[
            pb.DataPattern(name=one.name, pattern=one.pattern, description=one.description) for one in policy.patterns
        ],
        exceptions=[
            pb.DataException(digest=one.digest, pattern=one.pattern, detectors=one.detectors, note=one.note)
            for one in policy.exceptions
        ],
    )


def detector_message(detector: Detector) -> pb.DataDetector:
    """Return a detector as an administrator sees it."""
    return pb.DataDetector(
        name=detector.name,
        group=detector.group.value,
        description=detector.description,
        example=detector.example,
    )


def finding_message(row: DataFindingRow) -> pb.DataFinding:
    """Return a finding."""
    department = str(DepartmentName(row.tenant_id, row.department_id)) if row.department_id else ""
    return pb.DataFinding(
        find_time=timestamp(row.found_at),
        request_id=str(row.request_id),
        department=department,
        direction=_direction_number(Direction(row.direction)),
        detector=row.detector,
        action=action_number(Action[row.action]),
        count=row.value_count,
    )


def _direction_number(direction: Direction) -> "pb.DataDirection.ValueType":
    return pb.DataDirection.ValueType(_DIRECTION_NUMBERS[direction])


def action_number(action: Action) -> "pb.DataAction.ValueType":
    """Return an action as the wire has it: the numbers are the same."""
    return pb.DataAction.ValueType(int(action))


# --- from the wire ----------------------------------------------------------------------------------------------------


def policy_of(message: pb.DataPolicy, fields: Iterable[str], before: DataPolicy, digest: "Digest") -> DataPolicy:
    """Return a policy with some fields as the message has them.

    Raises:
        InvalidRequest: a detector or pattern is not there, two patterns have one name, a pattern is refused.
    """
    values = {name: READERS[name](message, digest) for name in fields}
    policy = before.model_copy(update=values)
    _check(policy)
    return policy


class Digest:
    """Makes the digests of one tenant's exceptions."""

    def __init__(self, key: DigestKey, tenant_id: str) -> None:
        self._key = key
        self._tenant_id = tenant_id

    def __call__(self, value: str) -> str:
        return self._key.digest(self._tenant_id, value)


def _rules(message: pb.DataPolicy, _digest: Digest) -> tuple[DataRule, ...]:
    return tuple(
        DataRule(
            detectors=tuple(one.detectors),
            directions=tuple(sorted(DIRECTIONS[number] for number in one.directions)),
            action=Action(one.action),
        )
        for one in message.rules
    )


def _patterns(message: pb.DataPolicy, _digest: Digest) -> tuple[NamedPattern, ...]:
    return tuple(
        NamedPattern(name=one.name, pattern=one.pattern, description=one.description) for one in message.patterns
    )


def _exceptions(message: pb.DataPolicy, digest: Digest) -> tuple[DataException, ...]:
    found, defects = [], []
    for at, one in enumerate(message.exceptions):
        if sum((bool(one.value), bool(one.digest), bool(one.pattern))) != 1:
            path = f"data_policy.exceptions[{at}]"
            defects.append(
                FieldViolation(path=path, description="must have a value, a digest or a pattern, one of them")
            )
            continue
        found.append(
            DataException(
                digest=digest(one.value) if one.value else one.digest,
                pattern=one.pattern,
                detectors=tuple(one.detectors),
                note=one.note,
            )
        )
    if defects:
        raise InvalidRequest(violations=tuple(defects))
    return tuple(found)


READERS: Final[Mapping[str, Callable[[pb.DataPolicy, Digest], Any]]] = MappingProxyType(
    {"rules": _rules, "patterns": _patterns, "exceptions": _exceptions}
)
"""How each field that can be changed is read."""


def _check(policy: DataPolicy) -> None:
    names = [one.name for one in policy.patterns]
    defects = [
        FieldViolation(path=f"data_policy.patterns[{at}].name", description="another pattern has this name")
        for at, name in enumerate(names)
        if name in names[:at]
    ]
    known = members().keys() | {f"{CUSTOM_PREFIX}{name}" for name in names}
    defects += _unknown("rules", [one.detectors for one in policy.rules], known)
    defects += _unknown("exceptions", [one.detectors for one in policy.exceptions], known)
    defects += _refused("patterns", [one.pattern for one in policy.patterns])
    defects += _refused("exceptions", [one.pattern for one in policy.exceptions])
    if defects:
        raise InvalidRequest(violations=tuple(defects))


def _unknown(field: str, named: Sequence[Iterable[str]], known: Container[str]) -> list[FieldViolation]:
    return [
        FieldViolation(path=f"data_policy.{field}[{at}].detectors", description=f"there is no detector {name}")
        for at, names in enumerate(named)
        for name in names
        if name not in known
    ]


def _refused(field: str, patterns: Sequence[str]) -> list[FieldViolation]:
    return [
        FieldViolation(path=f"data_policy.{field}[{at}].pattern", description=refusal)
        for at, pattern in enumerate(patterns)
        if (refusal := _refusal(pattern))
    ]


def _refusal(pattern: str) -> str:
    try:
        if pattern:
            compile_pattern(pattern)
    except PatternRefused as refused:
        return str(refused)
    return ""
