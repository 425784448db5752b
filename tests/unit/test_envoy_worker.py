"""What a worker inside Envoy loads: nothing that is there for few, and that beside those who are served."""

import subprocess
import sys

_FIRST_REQUESTS = """
import asyncio, sys
from tollhouse.admin.v1 import tenants_pb2
from tollhouse_server.api.validation import RequestValidator

async def main():
    validator, turns = RequestValidator(), 0
    request = tenants_pb2.GetTenantRequest(name="tenants/acme")
    checks = asyncio.gather(*(validator.check_beside_others(request) for _ in range(3)))
    while not checks.done():
        turns += 1
        await asyncio.sleep(0.001)
    await checks
    print("protovalidate" in sys.modules, turns > 3)

asyncio.run(main())
"""


def test_a_worker_loads_nothing_that_calls_have_no_use_for() -> None:
    """Together 21 MB in each worker, and a sixth of the time that it takes to load."""
    code = (
        "import sys, tollhouse_server.envoy_worker;"
        "print(*sorted(name for name, module in sys.modules.items() if module is not None))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded = set(done.stdout.split())
    assert "tollhouse_server.api.validation" in loaded
    assert loaded & {"aiohttp", "celpy", "obstore", "protovalidate", "rich"} == set()


def test_the_first_administrator_lets_others_be_served_while_rules_are_loaded() -> None:
    """It takes a quarter of a second: in a thread, so that the event loop turns on."""
    done = subprocess.run([sys.executable, "-c", _FIRST_REQUESTS], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["True", "True"]
