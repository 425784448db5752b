"""What is told of the content of calls: what data policies found, and what was kept."""

from tollhouse_server.telemetry.declarations.declaration import Declaration, counter, gauge

DATA_FOUND = counter(
    "tollhouse_data_found_total",
    "Values that data policies found in calls, by detector (CUSTOM: tenants' own patterns), direction and action.",
    "detector",
    "direction",
    "action",
)
DATA_FINDINGS_LOST = counter(
    "tollhouse_data_findings_lost_total",
    "Findings of data policies that were counted but not written down, because too many waited; 0 is expected.",
)
CONTENTS = counter(
    "tollhouse_contents_total",
    "Calls whose content was to be kept: `kept`, `dropped` (served and not kept) or `refused` (as their tenant wants).",
    "outcome",
)
CONTENTS_WAITING = gauge("tollhouse_content_waiting_calls", "Calls whose content waits to be written.", "livesum")

DECLARATIONS: tuple[Declaration, ...] = (
    DATA_FOUND,
    DATA_FINDINGS_LOST,
    CONTENTS,
    CONTENTS_WAITING,
)
