"""Every error a caller can see has a documented reason."""

import importlib
import pkgutil

import tollhouse_server
from tollhouse.v1 import errors_pb2
from tollhouse_server.api.statuses import CODES
from tollhouse_server.errors import TollhouseError

# What stops a server or its commands is read by the person at the terminal; no RPC can carry it.
NEVER_ON_THE_WIRE = (
    "tollhouse_server.embedded",
    "tollhouse_server.ports",
    "tollhouse_server.serving",
    "tollhouse_server.supervisor",
    "tollhouse_server.transport_choice",
)


def error_classes() -> list[type[TollhouseError]]:
    """Import every module of the server and return the whole family."""
    for module in pkgutil.walk_packages(tollhouse_server.__path__, "tollhouse_server."):
        if not module.name.endswith("__main__") and ".migrations" not in module.name:
            importlib.import_module(module.name)
    family, waiting = [], [TollhouseError]
    while waiting:
        found = waiting.pop()
        family.append(found)
        waiting.extend(found.__subclasses__())
    return family


def test_every_error_class_has_a_reason_that_the_protos_document() -> None:
    """A reason that is in no proto is a string that no caller can be ready for."""
    documented = {name.removeprefix("REASON_") for name in errors_pb2.Reason.DESCRIPTOR.values_by_name}

    undocumented = {
        f"{error.__module__}.{error.__name__}": error.reason
        for error in error_classes()
        if error.reason not in documented and not error.__module__.startswith(NEVER_ON_THE_WIRE)
    }

    assert undocumented == {}


def test_every_error_class_has_a_status() -> None:
    """An error that the table forgets reaches a caller as a defect of ours."""
    family = {error for error in error_classes() if not error.__module__.startswith(NEVER_ON_THE_WIRE)}

    assert family - CODES.keys() == {TollhouseError}


def test_every_error_class_says_what_is_wrong_in_its_own_docstring() -> None:
    """The docstring is the contract that a caller's documentation is written from."""
    assert [error.__name__ for error in error_classes() if not (error.__doc__ or "").strip()] == []
