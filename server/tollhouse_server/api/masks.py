"""Update masks: which fields of a resource a request changes."""

from collections.abc import Collection

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from tollhouse_server.errors import FieldViolation, InvalidRequest


def changed_fields(resource: Message, mask: FieldMask, changeable: Collection[str]) -> set[str]:
    """Return the fields to change: those of the mask, or without a mask every changeable one that is set.

    Raises:
        InvalidRequest: the mask names a field that is unknown or cannot be changed.
    """
    if not mask.paths:
        return {descriptor.name for descriptor, _ in resource.ListFields()} & set(changeable)
    if list(mask.paths) == ["*"]:
        return set(changeable)
    violations = tuple(
        FieldViolation(path="update_mask", description=f"{path!r} cannot be changed; {_these(changeable)} can")
        for path in mask.paths
        if path not in changeable
    )
    if violations:
        raise InvalidRequest(violations=violations)
    return set(mask.paths)


def _these(fields: Collection[str]) -> str:
    return ", ".join(sorted(fields))
