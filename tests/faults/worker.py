"""The test's own way into a process of the server: `python -m tests.faults.worker` forks workers with gates in them.

Arguments name the places that get gates; without any it is those of a call's way.

It imports the server once, gates put in, and then forks a worker or a housekeeper for each line on stdin; a start
takes a fraction of a second instead of two. Each child opens the control socket that the line names: commands come in
by it, what happens goes out by it. The product knows nothing of all this.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from tests.faults import envoy_worker
from tests.faults import gate as gates
from tests.faults.boundaries import PLACES
from tests.faults.control import Control


def main() -> None:
    """Fork a child for each line of stdin, until it ends."""
    places = sys.argv[1:] or list(PLACES)
    gate = gates.install(places)
    # The server's rooms may be imported only now.
    import tollhouse_server.processes  # noqa: F401, PLC0415

    # Nobody here asks how a child ended: the test sees its control socket close.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.write("forks\n")
    sys.stdout.flush()
    for line in sys.stdin:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _be_child(gate, places, **json.loads(line))


def _be_child(
    gate: gates.Gate, places: list[str], *, role: str, control: str, ports: Mapping[str, int], environment: Any
) -> None:
    os.setsid()
    os.environ.update(environment)
    # Only if it is named: a campaign starts thousands of workers, and one that is forked takes a tenth of the time.
    if role == "worker" and os.environ.get("TOLLHOUSE_TRANSPORT") == "envoy":
        envoy_worker.become(control=control, ports=ports, places=places)
    control_socket = Control(control, gate, ports)
    readable, writable = os.pipe()
    threading.Thread(target=control_socket.announce, args=(readable,), daemon=True).start()
    threading.Thread(target=control_socket.obey, daemon=True).start()
    status = _serve(role, writable)
    control_socket.say(event="bye", passed=dict(gate.passed))
    os._exit(status)


def _serve(role: str, ready_fd: int) -> int:
    import uvloop  # noqa: PLC0415
    from tollhouse_server import processes  # noqa: PLC0415
    from tollhouse_server.settings import load_settings  # noqa: PLC0415
    from tollhouse_server.telemetry.logging import configure_logging  # noqa: PLC0415

    settings = load_settings()
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    run = processes.work if role == "worker" else processes.keep_house
    try:
        uvloop.run(run(settings, ready_fd))
    except BaseException:  # noqa: BLE001 - printed, and the process ends with it
        # As the interpreter does for a program that fails; os._exit would keep it from us.
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    main()
