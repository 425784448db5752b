"""The dashboards, one file each: what they ask. How a question is drawn is in `grafana/panels.py`."""
