"""Data-loss prevention: what must not leave a tenant in prompts, or reach its callers in answers."""
