"""PromQL, put together so that every query looks only at the environments that were chosen on top of the board."""

ENVIRONMENT = 'environment=~"$environment"'
WINDOW = "[$__rate_interval]"


def series(metric: str, **labels: str) -> str:
    """Select a metric's series; a label's value is a regular expression, and one named `..._not` must not match."""
    chosen = [
        f'{name.removesuffix("_not")}{"!~" if name.endswith("_not") else "=~"}"{pattern}"'
        for name, pattern in labels.items()
    ]
    return f"{metric}{{{','.join([ENVIRONMENT, *chosen])}}}"


def rate(metric: str, by: str = "", **labels: str) -> str:
    """Return what a counter rises by in a second, added up over all series or by labels such as `"rpc, code"`."""
    return total(f"rate({series(metric, **labels)}{WINDOW})", by)


def increase(metric: str, window: str, by: str = "", **labels: str) -> str:
    """Return what a counter rose by in a window such as `1h`."""
    return total(f"increase({series(metric, **labels)}[{window}])", by)


def total(expression: str, by: str = "") -> str:
    """Add up over all series, or by labels."""
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def largest(metric: str, by: str = "", **labels: str) -> str:
    """Return the largest value of a gauge, of all or by labels."""
    grouped = f" by ({by})" if by else ""
    return f"max{grouped} ({series(metric, **labels)})"


def newest(metric: str, told_at: str) -> str:
    """Return the largest value of a gauge among those who told it last: who told it before keeps what he said then."""
    last = f"max by (environment) ({series(told_at)})"
    return f"max({series(metric)} and ({series(told_at)} == on (environment) group_left () {last}))"


def quantile(metric: str, part: str, by: str = "", **labels: str) -> str:
    """Return a quantile such as `"0.99"` of a histogram."""
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile({part}, {rate(f'{metric}_bucket', grouped, **labels)})"


def median_and_tail(metric: str, by: str = "") -> dict[str, str]:
    """Return queries for the median and the 99th percentile of a histogram, by legend."""
    legend = f" {{{{{by}}}}}" if by else ""
    return {f"p50{legend}": quantile(metric, "0.5", by), f"p99{legend}": quantile(metric, "0.99", by)}


def or_zero(expression: str) -> str:
    """Return 0 where there is nothing to count, which Prometheus leaves out."""
    return f"({expression} or vector(0))"
