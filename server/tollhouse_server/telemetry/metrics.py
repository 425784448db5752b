"""What the rooms report to: one small typed method per thing that happens. No tenant, caller or key gets in here."""

from prometheus_client import CollectorRegistry

from tollhouse_server.telemetry.audit_metrics import AuditMetrics
from tollhouse_server.telemetry.call_metrics import CallMetrics, ReportedUsage, TokenCount
from tollhouse_server.telemetry.content_metrics import ContentMetrics
from tollhouse_server.telemetry.data_metrics import DataMetrics
from tollhouse_server.telemetry.key_metrics import KeyMetrics
from tollhouse_server.telemetry.ledger_metrics import LedgerMetrics
from tollhouse_server.telemetry.money_metrics import MoneyMetrics
from tollhouse_server.telemetry.multiprocess import write_own_files
from tollhouse_server.telemetry.observing_metrics import ObservingMetrics
from tollhouse_server.telemetry.process_metrics import ProcessMetrics
from tollhouse_server.telemetry.upstream_metrics import UpstreamMetrics

__all__ = ["Metrics", "ReportedUsage", "TokenCount"]


class Metrics(
    CallMetrics, DataMetrics, MoneyMetrics, UpstreamMetrics, KeyMetrics, LedgerMetrics, AuditMetrics, ProcessMetrics
):
    """The metrics of one process, on the registry it is given; safe from any thread, microseconds a call."""

    def __init__(self, registry: CollectorRegistry) -> None:
        write_own_files()
        CallMetrics.__init__(self, registry)
        DataMetrics.__init__(self, registry)
        MoneyMetrics.__init__(self, registry)
        UpstreamMetrics.__init__(self, registry)
        KeyMetrics.__init__(self, registry)
        LedgerMetrics.__init__(self, registry)
        AuditMetrics.__init__(self, registry)
        ProcessMetrics.__init__(self, registry)
        self.contents = ContentMetrics(registry)
        self.observing = ObservingMetrics(registry)
