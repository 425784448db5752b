"""What every way in which calls arrive can do."""

from typing import Protocol

from tollhouse_server.background import Background


class Transport(Protocol):
    """Serves handlers at the port of the settings, which it shares with the other workers."""

    def run_in(self, tasks: Background) -> None:
        """Run what goes on beside the calls."""

    async def start(self) -> int:
        """Take calls and say that all services are healthy; return the port."""

    async def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, say so to health checks, and let those under way end within `grace_seconds`."""
