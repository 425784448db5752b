"""What generation tells of upstream keys: which the upstream has refused, and what each has spent."""

from tollhouse_server.custody.key_use import KeyUse
from tollhouse_server.custody.quarantine import Quarantine
from tollhouse_server.routing.targets import UpstreamKeyMeta


class KeyWatch:
    """Passes on to quarantine and to the count of use what a call meets. Waits for nothing."""

    def __init__(self, quarantine: Quarantine, use: KeyUse) -> None:
        self._quarantine = quarantine
        self._use = use
        self.is_out = quarantine.is_out

    def refused(self, key: UpstreamKeyMeta, *, http_status: int) -> None:
        """Take a refused key out of use, in this process at once and everywhere soon."""
        self._quarantine.report(key.account_id, key.key_id, key.fingerprint, http_status)

    def used(self, key: UpstreamKeyMeta, *, cost_nanos: int) -> None:
        """Count a served call."""
        self._use.note(key.account_id, key.key_id, cost_nanos)
