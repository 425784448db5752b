"""What a calling service has: generated stubs, a channel and a key."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tollhouse.v1 import content_pb2, generation_pb2, generation_pb2_grpc

from tests.drivers.stack import RunningStack


@contextmanager
def generation_stub(stack: RunningStack) -> Iterator[generation_pb2_grpc.GenerationServiceStub]:
    """Open a channel and yield the stub."""
    with grpc.insecure_channel(stack.grpc) as channel:
        yield generation_pb2_grpc.GenerationServiceStub(channel)


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata that carries a key."""
    return (("authorization", f"Bearer {key}"),)


def prompt(text: str, **fields: Any) -> generation_pb2.GenerateContentRequest:
    """Build a request of one user turn; tier flash unless `fields` name a tier or a model."""
    if "tier" not in fields and "model" not in fields:
        fields["tier"] = "flash"
    contents = [content_pb2.Content(role="user", parts=[content_pb2.Part(text=text)])]
    return generation_pb2.GenerateContentRequest(contents=contents, **fields)


def text_of(response: generation_pb2.GenerateContentResponse) -> str:
    """Return the answer's text, thoughts left out."""
    parts = response.candidates[0].content.parts if response.candidates else []
    return "".join(part.text for part in parts if not part.thought)


def details_of(error: grpc.RpcError) -> dict[str, Message]:
    """Return the details of a status by the name of their message type."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    known: tuple[type[Message], ...] = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.RetryInfo,
        error_details_pb2.QuotaFailure,
        error_details_pb2.BadRequest,
    )
    found: dict[str, Message] = {}
    for detail in status.details:
        for kind in (*known, *_own_details()):
            if detail.Is(kind.DESCRIPTOR):
                message = kind()
                detail.Unpack(message)
                found[kind.DESCRIPTOR.name] = message
    return found


def _own_details() -> tuple[type[Message], ...]:
    from tollhouse.v1 import errors_pb2  # noqa: PLC0415 - registered on first use

    return (errors_pb2.LimitState, errors_pb2.UpstreamError)


def reason_of(error: grpc.RpcError) -> str:
    """Return the documented reason of a refusal."""
    info = details_of(error)["ErrorInfo"]
    return str(getattr(info, "reason", ""))
