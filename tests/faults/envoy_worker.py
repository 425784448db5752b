"""A driven worker inside Envoy: the gates are put in before anything of the worker is loaded."""

import json
import os
import threading
from collections.abc import Mapping
from typing import Any

from tests.faults import gate as gates
from tests.faults.control import Control

_ORDER = "FAULTS_ENVOY_ORDER"


def become(*, control: str, ports: Mapping[str, int], places: list[str]) -> None:
    """Turn this process into an Envoy that is driven by the socket `control`."""
    from tollhouse_server.api.transports.envoy_process import become_envoy  # noqa: PLC0415
    from tollhouse_server.settings import load_settings  # noqa: PLC0415

    readable, writable = os.pipe()
    for descriptor in (readable, writable):
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - it takes no name
    order = {"control": control, "ports": ports, "places": places, "readable": readable}
    os.environ[_ORDER] = json.dumps(order)
    become_envoy(load_settings(), name="driven worker", app=f"{__name__}:app", ready_fd=writable)


def _driven(*, control: str, ports: Mapping[str, int], places: list[str], readable: int) -> Control:
    made = Control(control, gates.install(places), ports)
    threading.Thread(target=made.announce, args=(readable,), daemon=True).start()
    threading.Thread(target=made.obey, daemon=True).start()
    return made


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Be a worker; it is loaded when it is to begin."""
    if scope["type"] == "lifespan":
        _driven(**json.loads(os.environ.pop(_ORDER)))
    from tollhouse_server.envoy_worker import app as worker  # noqa: PLC0415

    await worker(scope, receive, send)
