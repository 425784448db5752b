"""Panels of who calls: credentials that are refused, and the certificate that callers are shown."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from grafana.panels import lines, number


def identity(board: Dashboard) -> Dashboard:
    """Add the row."""
    return (
        board.with_row(Row("Who calls"))
        .with_panel(
            lines(
                "Refused credentials",
                "By what was wrong with them; callers are not told. Many with a wrong secret are somebody who tries.",
                "reqps",
                {"{{fault}}": "sum by (fault) (rate(tollhouse_credentials_refused_total[5m]))"},
                span=12,
            )
        )
        .with_panel(
            number(
                "Certificate expires in",
                "Of the certificate that new connections are shown; nothing where the port has no TLS.",
                "s",
                "min(tollhouse_tls_certificate_expiry_seconds)",
            )
        )
        .with_panel(
            lines(
                "Certificates",
                "New files put in force, and files that could not be used: then the old certificate goes on.",
                "short",
                {"{{outcome}}": "sum by (outcome) (increase(tollhouse_tls_certificate_reloads_total[1h]))"},
            )
        )
    )
