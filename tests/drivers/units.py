"""What one process of the tests is given at once: a module, or all modules that share a server.

A server takes seven seconds of a core to start and 4% of one while it is idle, and each process would have its own.
"""

from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling

_ACCEPTANCE = PurePosixPath("tests/acceptance")
_ON_TWO_WORKERS = frozenset({"test_canary_tenants", "test_hard_budget", "test_metrics_endpoint"})
_ON_THEIR_OWN = frozenset(
    {
        *("test_broken_envoy", "test_canaries", "test_faults", "test_kill_workers", "test_month_report", "test_nano"),
        *(
            "test_nano_tier",
            "test_operations",
            "test_parts_down",
            "test_prometheus",
            "test_start_and_stop",
            "test_tracing",
        ),
    }
)


class SharedServers(LoadScopeScheduling):
    """Gives out modules, and those that share a server together."""

    def _split_scope(self, nodeid: str) -> str:
        module = PurePosixPath(super()._split_scope(nodeid))
        if module.parent != _ACCEPTANCE or module.stem in _ON_THEIR_OWN:
            return str(module)
        return str(_ACCEPTANCE / ("two_workers" if module.stem in _ON_TWO_WORKERS else "running_stack"))
