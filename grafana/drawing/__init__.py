"""The boards as pictures, drawn where no Grafana runs: what Prometheus answers their queries, as SVG."""
