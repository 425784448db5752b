"""Panels of what is kept of calls."""

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
        span=24,
    )
