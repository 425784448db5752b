"""Nonsense to every RPC: refused with a reason, nothing crashes, nothing hangs."""

import random
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tollhouse_server.api.permissions import rules

from tests.drivers.callers import bearer, reason_of
from tests.drivers.stack import RunningStack

SEED = 20261121
MESSAGES_PER_RPC = 6
SECONDS_PER_CALL = 5.0
NASTY_TEXTS = (
    "",
    "null",
    "..",
    "tenants/demo",
    "tenants/demo/departments/research/projects/assistant",
    "tenants/other/limits/x",
    "accounts/main",
    "a'; DROP TABLE tenant; --",
    "{research,NULL}",
    "*",
    "\x00",
    "\x1b[31mred\r\nX-Injected: 1",
    "Ω≈ç√∫",
    "𝔘" * 50,
    "a" * 5000,
    "%s%n{0}",
    "-1",
    "1e999",
    "00000000-0000-0000-0000-000000000000",
)
NASTY_INTEGERS = (0, 1, -1, 2**31 - 1, -(2**31), 1001)
NASTY_LONGS = (*NASTY_INTEGERS, 2**63 - 1, -(2**63))
NASTY_NUMBERS = (0.0, -1.0, float("nan"), float("inf"), 1e308)


def rpcs() -> list[str]:
    """Return every RPC, dotted."""
    return sorted(rules())


def request_type(rpc: str) -> type[Message]:
    """Return the request message of an RPC."""
    from google.protobuf import descriptor_pool  # noqa: PLC0415
    from tollhouse_server import services  # noqa: F401, PLC0415 - registers every proto

    service, _, method = rpc.rpartition(".")
    found: type[Message] = GetMessageClass(
        descriptor_pool.Default().FindServiceByName(service).methods_by_name[method].input_type
    )
    return found


def fill(message: Any, chance: random.Random, depth: int = 0) -> Any:
    """Fill some of a message's fields with nasty values of their types."""
    for field in message.DESCRIPTOR.fields:
        if chance.random() < 0.4 or depth > 4:
            continue
        if field.is_repeated:
            fill_repeated(message, field, chance, depth)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            fill(getattr(message, field.name), chance, depth + 1)
        else:
            setattr(message, field.name, nasty(field, chance))
    return message


def fill_repeated(message: Any, field: FieldDescriptor, chance: random.Random, depth: int) -> None:
    """Add a few nasty items to a repeated field; maps are left to the fields around them."""
    items = getattr(message, field.name)
    if field.type != FieldDescriptor.TYPE_MESSAGE:
        items.extend(nasty(field, chance) for _ in range(chance.randint(0, 3)))
    elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
        for _ in range(chance.randint(0, 2)):
            fill(items.add(), chance, depth + 1)


_NASTY: dict[int, tuple[object, ...]] = {
    FieldDescriptor.TYPE_STRING: NASTY_TEXTS,
    FieldDescriptor.TYPE_BYTES: (b"", b"\x00", b"\xff" * 64),
    FieldDescriptor.TYPE_BOOL: (False, True),
    FieldDescriptor.TYPE_DOUBLE: NASTY_NUMBERS,
    FieldDescriptor.TYPE_FLOAT: NASTY_NUMBERS,
    FieldDescriptor.TYPE_ENUM: (0, 1, 2, 99),
    FieldDescriptor.TYPE_INT64: NASTY_LONGS,
}


def nasty(field: FieldDescriptor, chance: random.Random) -> Any:
    """Return a nasty value of a scalar field's type."""
    return chance.choice(_NASTY.get(field.type, NASTY_INTEGERS))


def bodies(rpc: str) -> Iterator[bytes]:
    """Yield what is sent to an RPC: random bytes, an empty message, and messages full of nasty values."""
    chance = random.Random(f"{SEED} {rpc}")
    yield chance.randbytes(200)
    yield b""
    for _ in range(MESSAGES_PER_RPC):
        message = fill(request_type(rpc)(), chance)
        if "validate_only" in message.DESCRIPTOR.fields_by_name:
            message.validate_only = True
        yield message.SerializeToString()


@pytest.mark.parametrize("rpc", rpcs())
def test_nonsense_is_refused_with_a_reason(running_stack: RunningStack, rpc: str) -> None:
    """By the administrator, who may do everything, so that permission hides nothing. Changes are dry runs."""
    service, _, method = rpc.rpartition(".")
    with grpc.insecure_channel(running_stack.grpc) as channel:
        is_stream = method.startswith(("Stream", "Verify"))
        kind = channel.unary_stream if is_stream else channel.unary_unary
        call: Any = kind(f"/{service}/{method}")
        for body in bodies(rpc):
            started_at = time.monotonic()
            try:
                answer = call(body, metadata=bearer(running_stack.admin_api_key), timeout=SECONDS_PER_CALL)
                _ = list(answer) if is_stream else answer
            except grpc.RpcError as error:
                code, reason = error.code(), reason_of(error)
                assert code not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, error.details()
                assert reason not in {"", "INTERNAL"}, (code, error.details())
            assert time.monotonic() - started_at < SECONDS_PER_CALL
