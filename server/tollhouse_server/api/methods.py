"""From a service's descriptor and an object with handlers to the methods that a transport serves."""

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from tollhouse_server.api.chain import Method


def methods_of(service: ServiceDescriptor, *handlers: object) -> Iterator[Method]:
    """Yield every RPC of `service` with its handler: `GenerateContent` is served by `generate_content` of a handler.

    Raises:
        AttributeError: a handler is missing; the server must not start without it.
    """
    for rpc in service.methods:
        name = snake_case(rpc.name)
        # The last one is asked even if it has no such handler, for the error that this is.
        handler: Any = getattr(next((one for one in handlers if hasattr(one, name)), handlers[-1]), name)
        yield Method(
            rpc=f"{service.full_name}/{rpc.name}",
            request_type=GetMessageClass(rpc.input_type),
            handler=handler,
            is_stream=rpc.server_streaming,
        )


def snake_case(name: str) -> str:
    """Return a name of a proto, `GenerateContent`, as Python writes it."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
