"""The transports, for tests that are to hold on each; one that cannot run here is skipped, and says why."""

import pytest
from tollhouse_server.transport_choice import chosen

_CHOICE = chosen("auto")

NEEDS_ENVOY = pytest.mark.skipif(_CHOICE.transport != "envoy", reason=_CHOICE.why)
TRANSPORTS = ("grpcio", pytest.param("envoy", marks=NEEDS_ENVOY))
