"""Every check by its name, in the order in which they are shown. The next check is a function and a line here."""

from collections.abc import Iterator

from tollhouse_server.operations.checks import books, clocks, host, postgres, upstream, vault
from tollhouse_server.operations.checks.terms import Check, Surroundings

_DATABASE = "See that PostgreSQL runs and TOLLHOUSE_POSTGRES_DSN names it: pg_isready -h HOST -p PORT"
_VAULT = "See that Vault runs and TOLLHOUSE_VAULT_ADDRESS names it: curl ADDRESS/v1/sys/health"
_METRICS = "See the supervisor's log; the port is TOLLHOUSE_METRICS_PORT"
_POSTGRES_UP, _VAULT_UP, _METRICS_UP = "postgres.reachable", "vault.reachable", "metrics.port"
_NETWORK = "See whether this host reaches the upstream: curl -I URL"

CHECKS = (
    Check(name="postgres.reachable", look=postgres.reachable, advice=_DATABASE),
    Check(name="postgres.writable", look=postgres.writable, advice=_DATABASE, needs=_POSTGRES_UP),
    Check(name="postgres.connections", look=postgres.connections, advice=_DATABASE, needs=_POSTGRES_UP),
    Check(name="postgres.role", look=postgres.role, advice=_DATABASE, needs=_POSTGRES_UP),
    Check(name="postgres.row-security", look=postgres.row_security, advice=_DATABASE, needs=_POSTGRES_UP),
    Check(name="postgres.transactions", look=postgres.transactions, advice=_DATABASE, needs=_POSTGRES_UP),
    Check(name="postgres.replication", look=postgres.replication, advice=_DATABASE, needs=_POSTGRES_UP),
    Check(name="postgres.migrations", look=postgres.migrations, advice=_DATABASE, needs=_POSTGRES_UP),
    Check(name="postgres.partitions", look=postgres.partitions, advice=_DATABASE, needs=_POSTGRES_UP),
    Check(name="vault.reachable", look=vault.reachable, advice=_VAULT),
    Check(name="vault.sealed", look=vault.sealed, advice=_VAULT, needs=_VAULT_UP),
    Check(name="vault.gateway", look=vault.gateway, advice=_VAULT, needs=_VAULT_UP),
    Check(name="vault.custodian", look=vault.custodian, advice=_VAULT, needs=_VAULT_UP),
    Check(name="upstream.accounts", look=upstream.accounts, advice=_DATABASE, needs=_POSTGRES_UP),
    Check(name="upstream.breakers", look=upstream.breakers, advice=_DATABASE, needs=_POSTGRES_UP),
    Check(name="clock.database", look=clocks.database, advice=_DATABASE, needs=_POSTGRES_UP),
    Check(name="clock.google", look=clocks.google, advice=_NETWORK),
    Check(name="metrics.port", look=host.metrics_port, advice=_METRICS),
    Check(name="metrics.processes", look=host.processes, advice=_METRICS, needs=_METRICS_UP),
    Check(name="tls.certificate", look=host.certificate, advice="See the file of TOLLHOUSE_TLS_CERTIFICATE_FILE"),
    Check(name="host.disk", look=host.disk, advice="See the disk of TOLLHOUSE_STATE_DIR: df -h"),
    Check(name="host.transport", look=host.transport, advice=""),
    Check(name="settings.production", look=host.settings, advice=""),
    Check(name="ledger.suspense", look=books.suspense, advice=_DATABASE, needs=_POSTGRES_UP),
    Check(name="ledger.verification", look=books.verification, advice=_METRICS, needs=_METRICS_UP),
    Check(name="ledger.roll-ups", look=books.rollups, advice=_METRICS, needs=_METRICS_UP),
    Check(name="audit.checkpoints", look=books.checkpoints, advice=_METRICS, needs=_METRICS_UP),
    Check(name="audit.anchor", look=books.anchor, advice=_METRICS, needs=_METRICS_UP),
    Check(name="deliveries.failed", look=books.deliveries, advice=_DATABASE, needs=_POSTGRES_UP),
)


def checks_for(surroundings: Surroundings) -> Iterator[Check]:
    """Yield every check, those of each upstream account behind that of all."""
    for check in CHECKS:
        yield check
        if check.name == "upstream.accounts":
            yield from upstream.checks_of_accounts(surroundings.catalogue())
