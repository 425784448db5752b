"""Events and checkpoints of the trail as callers see them."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from tollhouse.admin.v1 import audit_pb2 as pb

from tollhouse_server.api.values import timestamp
from tollhouse_server.audit.personal import Erased, Opened, PersonalData, with_people
from tollhouse_server.audit.store import Link
from tollhouse_server.audit.tables import AuditCheckpointRow
from tollhouse_server.errors import TollhouseError
from tollhouse_server.vault.signing import ALGORITHM

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def event_message(link: Link, personal: PersonalData) -> pb.AuditEvent:
    """Return an event with its personal data, where it can be read."""
    line = json.loads(link.line)
    unmapped, user = line["unmapped"], line["actor"]["user"]
    opened, state = await read_personal(link, personal, unmapped["personal"])
    values = {} if opened is None else opened.values()
    people = values.get("personal", {})
    return pb.AuditEvent(
        sequence=link.sequence,
        time=timestamp(_moment(unmapped["time_micros"])),
        kind=pb.AuditEvent.Kind.Value(f"KIND_{line['metadata']['event_code']}"),
        reason=line["status_code"],
        count=line["count"],
        start_time=timestamp(_moment(line["start_time"] * 1000)),
        actor=user["uid"],
        credential_id=user["credential_uid"],
        method=line["api"]["operation"],
        permission=unmapped["permission"],
        resource=line["resources"][0]["uid"],
        before=_struct(with_people(unmapped["before"], people.get("before", {}))),
        after=_struct(with_people(unmapped["after"], people.get("after", {}))),
        request_id=line["api"]["request"]["uid"],
        correlation_id=line["metadata"]["correlation_uid"],
        personal=state,
        source_address=values.get("src_endpoint", {}).get("ip", ""),
        user_agent=values.get("http_request", {}).get("user_agent", ""),
        hash=link.hash,
    )


async def read_personal(
    link: Link, personal: PersonalData, written: str
) -> tuple[Opened | None, "pb.AuditEvent.Personal.ValueType"]:
    """Return an event's personal data and what became of it; `written` is what the event says itself."""
    if written != "SEALED":
        return None, pb.AuditEvent.Personal.Value(f"PERSONAL_{written}")
    try:
        return await personal.open(link), pb.AuditEvent.PERSONAL_OPEN
    except Erased:
        return None, pb.AuditEvent.PERSONAL_ERASED
    except TollhouseError:
        return None, pb.AuditEvent.PERSONAL_UNREADABLE


def checkpoint_message(row: AuditCheckpointRow) -> pb.AuditCheckpoint:
    """Return a checkpoint with its proof."""
    return pb.AuditCheckpoint(
        document=row.document,
        tree_size=row.tree_size,
        leaf_index=row.leaf_index,
        path=row.path,
        signature=pb.AuditSignature(algorithm=ALGORITHM, key=row.key, key_version=row.key_version, value=row.signature),
    )


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _struct(value: Mapping[str, Any] | None) -> Struct | None:
    return None if value is None else ParseDict(dict(value), Struct())
