"""Panels of what is kept of calls, and of what is found in them."""

from grafana_foundation_sdk.builders import timeseries

from grafana.panels import lines


def contents() -> timeseries.Panel:
    """How the keeping of prompts and answers goes."""
    return lines(
        "Kept content",
        "Calls whose prompt or answer was to be kept; dropped means served and not kept, and somebody should ask why.",
        "short",
        {
            "{{outcome}}": "sum by (outcome) (rate(tollhouse_contents_total[5m]))",
            "waiting": "sum(tollhouse_content_waiting_calls)",
        },
        span=12,
    )


def findings() -> timeseries.Panel:
    """What data policies find."""
    return lines(
        "Found by data policies",
        "Values found in prompts and answers, by detector and what became of them; lost ones were counted, not listed.",
        "short",
        {
            "{{detector}} {{direction}} {{action}}": (
                "sum by (detector, direction, action) (rate(tollhouse_data_found_total[5m]))"
            ),
            "lost": "sum(rate(tollhouse_data_findings_lost_total[5m]))",
        },
        span=12,
    )
