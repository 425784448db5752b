"""Every metric, declared once, by topic; `docs/metrics.md`, the dashboards and the alerts are checked against this.

Names follow Prometheus: base units, the unit last, counters in `_total`. Labels are bounded: tiers, models, target
kinds and reasons are catalogue data or enums. Callers, keys and e-mail addresses are never labels. Tenants, departments
and limits are labels of the gauges of money alone (`money.py`): those with the highest values, the rest as `other`.
"""

from tollhouse_server.telemetry.declarations import (
    audit,
    calls,
    content,
    database,
    keys,
    ledger,
    money,
    observing,
    processes,
    upstream,
)
from tollhouse_server.telemetry.declarations.declaration import Aggregation, Declaration, Kind, Source, series_names

DECLARATIONS: tuple[Declaration, ...] = (
    *calls.DECLARATIONS,
    *content.DECLARATIONS,
    *money.DECLARATIONS,
    *upstream.DECLARATIONS,
    *keys.DECLARATIONS,
    *ledger.DECLARATIONS,
    *audit.DECLARATIONS,
    *database.DECLARATIONS,
    *processes.DECLARATIONS,
    *observing.DECLARATIONS,
)

__all__ = ["DECLARATIONS", "Aggregation", "Declaration", "Kind", "Source", "series_names"]
