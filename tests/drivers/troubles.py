"""What goes wrong for a watched company, with the query by which Prometheus sees it; over when the function returns."""

import base64
import json
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import grpc
import psutil
from google.protobuf.message import Message
from tollhouse.admin.v1 import tenants_pb2, tenants_pb2_grpc
from tollhouse.v1 import content_pb2 as c
from tollhouse_server.identity.keys import checksum

from tests.drivers.callers import bearer, prompt
from tests.drivers.google_bill import PACIFIC, as_jsonl, google_bill, some_calls, statements, with_other_price
from tests.drivers.stack import RunningStack
from tests.drivers.watched import ISSUER, Watched

MODEL = "gemini-3.5-flash"
_PATIENCE_SECONDS = 90.0
_VERIFIED_SECONDS = 420.0
"""From a start on, with the time that a leader takes to be one."""
Ask = Callable[[], None]


def settings_are_made(watched: Watched) -> None:
    """Set up what a company has: limits of account and department, policies, a past of spending."""
    here = ("--tenant", "demo")
    tollhouse = watched.tollhouse
    tollhouse.ok("accounts", "update", "main", "--limit", "requests-per-minute=6000")
    tollhouse.ok("data-policies", "set", *here, "--rule", "email=mask")
    tollhouse.ok("content", "set-policy", *here, "--keep", "prompts", "--scope", "departments/research")
    budget = ("--metric", "cost", "--window", "day", *here, "--department", "research")
    tollhouse.ok("limits", "create", "large", *budget, "--amount", "$500")
    tollhouse.ok("departments", "create", "pilot", *here)


def finance_has_work(watched: Watched, ask: Ask) -> None:
    """Spend a small budget until it refuses, and compare a bill that differs."""
    _exhaust_budget(watched)
    _import_bill(watched)
    watched.until('tollhouse_refusals_total{reason="LIMIT_EXCEEDED"}')
    # One round of readings tells all of them.
    watched.until('tollhouse_budget_used_ratio{limit="small"} > 0.1')
    watched.until('tollhouse_reconciliation_variance_dollars{verdict="blocking"} > 0')
    watched.until("tollhouse_reconciliation_age_seconds")
    watched.until("sum(tollhouse_limit_alerts_total) > 0")
    ask()
    watched.tollhouse.ok("limits", "delete", "small", "--tenant", "demo", "--yes")


def _exhaust_budget(watched: Watched) -> None:
    budget = ("--metric", "cost", "--window", "day", "--tenant", "demo", "--department", "research")
    watched.tollhouse.ok("limits", "create", "small", *budget, "--amount", "$0.002", "--threshold", "10")
    short = c.GenerationConfig(max_output_tokens=100)
    while watched.call(prompt("Hello [[tokens:100]]", generation_config=short)):
        pass


def _import_bill(watched: Watched) -> None:
    month = datetime(2025, 2, 10, tzinfo=PACIFIC)
    calls = some_calls(random.Random(8), 24, start=month, days=2, accounts=("billed",), tenants=("demo",))
    gateway = watched.deployment.gateway
    gateway.query("SELECT create_usage_partition('2025-02-01')")
    for statement, values in statements(calls):
        gateway.query(statement, *values)
    bill = google_bill(calls)
    dear = next(place for place, row in enumerate(bill) if "output" in row["sku"]["description"])
    bill[dear] = with_other_price(bill[dear], 10)
    file = watched.parts.directory / "bill.jsonl"
    file.write_text(as_jsonl(bill), encoding="utf-8")
    watched.tollhouse.ok("reconcile", "import", str(file))
    watched.tollhouse.ok("reconcile", "run", "2025-02")


def books_are_changed(watched: Watched, ask: Ask) -> None:
    """Have somebody change what was counted, before the ledger is verified first."""
    watched.sql("UPDATE counter SET settled = settled + 1 WHERE tenant_id = 'demo' AND settled > 0")
    ask()


def books_are_verified(watched: Watched, ask: Ask) -> None:
    """Wait until the change is found."""
    watched.prometheus.wait_until("tollhouse_ledger_findings > 0", seconds=_VERIFIED_SECONDS)
    watched.until('ALERTS{alertname="TollhouseConservationFailed",alertstate="firing"}')
    ask()


def month_is_closed(watched: Watched, ask: Ask) -> None:
    """Have a month closed."""
    watched.sql(
        "INSERT INTO billing_period (tenant_id, month, state, starts_at, ends_at, time_zone, is_fiscal) "
        "VALUES ('demo', '2025-01', 'CLOSED', '2025-01-01Z', '2025-02-01Z', 'UTC', false)"
    )
    watched.until("increase(tollhouse_periods_closed_total[2m]) > 0")
    ask()


def breaker_is_open(watched: Watched, ask: Ask) -> None:
    """Have an operator open the breaker of every target, so that nothing serves."""
    watched.tollhouse.ok("breakers", "open", "main", "--reason", "a trial", "--yes")
    watched.until("tollhouse_breaker_state == 2")
    watched.until('increase(tollhouse_breaker_changes_total{state="open"}[2m]) > 0')
    _call_until(watched, 'tollhouse_refusals_total{reason="TARGETS_UNHEALTHY"}')
    watched.until('ALERTS{alertname="TollhouseBreakerOpen",alertstate="firing"}')
    ask()
    watched.tollhouse.ok("breakers", "auto", "main")
    watched.until("max(tollhouse_breaker_state) < 2")
    _until_ended(watched, "TollhouseBreakerOpen")


def upstream_fails(watched: Watched, ask: Ask) -> None:
    """Have Gemini refuse, say nothing of usage, and write more than it was allowed."""
    watched.call(prompt("Tell me [[no-usage]]"))
    watched.replay(_TOO_LONG_ANSWER)
    watched.call(prompt("Hello"))
    watched.fault("503", count=3)
    watched.call(prompt("Hello"))
    watched.fault("429", count=1, retry_delay_seconds=6)
    watched.call(prompt("Hello", model=MODEL))
    for metric in ("usage_missing_total", "settled_above_hold_total", "account_cooling_seconds > 0"):
        watched.until(f"tollhouse_{metric}")
    ask()


_TOO_LONG_ANSWER: Mapping[str, object] = {
    "candidates": [{"content": {"parts": [{"text": "The"}], "role": "model"}, "index": 0, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 500_000, "totalTokenCount": 500_005},
}


def queue_is_full(watched: Watched, ask: Ask) -> None:
    """Have more calls come at once than there are places, upstream and in the queue; again, so that counts rise."""
    watched.fault("slow", delay_seconds=0.5)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not watched.prometheus.query(_SHED_AND_WAITED):
        assert time.monotonic() < deadline, "no call waits, or none is shed"
        watched.at_once(64, prompt("Hello"))
    watched.clear_faults()
    ask()


_SHED_AND_WAITED = (
    "sum(rate(tollhouse_call_wait_seconds_count[1m])) > 0 and sum(rate(tollhouse_shed_calls_total[1m])) > 0"
)


def credentials_are_tried(watched: Watched, ask: Ask) -> None:
    """Have somebody ask without permission, and with a token of an issuer that does not answer."""
    gateway = watched.deployment.gateway
    provider = ("--issuer", ISSUER, "--audience", "tollhouse", "--tenant", "demo")
    watched.tollhouse.ok("identity-providers", "create", "nobody", *provider)
    with grpc.insecure_channel(gateway.grpc) as channel:
        tenants = tenants_pb2_grpc.TenantServiceStub(channel)
        _refused(tenants.CreateTenant, tenants_pb2.CreateTenantRequest(tenant_id="mine"), gateway.demo_api_key)
    for _ in range(12):
        watched.call(prompt("Hello"), key=_token())
        watched.call(prompt("Hello"), key=_with_another_secret(gateway.demo_api_key))
    watched.until('tollhouse_credentials_refused_total{fault="wrong_secret"}')
    watched.until('tollhouse_refusals_total{reason="IDENTITY_PROVIDER_UNAVAILABLE"}')
    watched.until("tollhouse_audit_refusals_total")
    ask()


def _refused(method: Callable[..., Message], request: Message, key: str) -> None:
    try:
        method(request, metadata=bearer(key), timeout=20)
    except grpc.RpcError:
        return
    raise AssertionError(f"{request} was not refused")


def _with_another_secret(key: str) -> str:
    body = key[: -len(checksum(""))]
    changed = body[:-1] + ("a" if body[-1] != "a" else "b")
    return changed + checksum(changed)


def _token() -> str:
    now = int(time.time())
    header = {"alg": "RS256", "kid": "1", "typ": "JWT"}
    claims = {"iss": ISSUER, "aud": "tollhouse", "sub": "ann", "iat": now, "exp": now + 600}
    parts = [json.dumps(one).encode() for one in (header, claims)] + [b"x" * 256]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def keys_are_changed(watched: Watched, ask: Ask) -> None:
    """Rotate a key, and be without any after it was refused."""
    _add_key(watched, "second", "--replaces", "first")
    watched.until("increase(tollhouse_upstream_key_promotions_total[2m]) > 0")
    watched.fault("403")
    _call_until(watched, "tollhouse_upstream_key_refusals_total")
    _call_until(watched, 'tollhouse_refusals_total{reason="NO_UPSTREAM_KEY"}')
    watched.until("rate(tollhouse_upstream_key_refusals_total[5m])")
    watched.until('rate(tollhouse_refusals_total{reason="NO_UPSTREAM_KEY"}[5m])')
    ask()


def _add_key(watched: Watched, key: str, *options: str) -> None:
    adding = ("upstream-keys", "add", key, "--account", "main", "--key-file", "-", *options)
    watched.tollhouse.ok(*adding, stdin=f"simulator-key-{key}")


def vault_is_away(watched: Watched, ask: Ask) -> None:
    """Stop Vault while something is to be signed, and while content must be kept."""
    here = ("--tenant", "demo")
    watched.tollhouse.ok("content", "set-policy", *here, "--must-keep")
    watched.parts.stop_openbao()
    watched.tollhouse.ok("departments", "create", "unsigned", *here)
    watched.until('tollhouse_part_up{part="vault"} == 0')
    # That server's worker has kept nothing yet, so it would have to ask Vault for the tenant's key.
    watched.call_second(prompt("Hello"))
    watched.until('tollhouse_contents_total{outcome="refused"}')
    watched.until('tollhouse_audit_failures_total{cause="vault"}')
    watched.until('ALERTS{alertname="TollhouseVaultUnreachable",alertstate="firing"}')
    ask()
    watched.parts.start_openbao()
    watched.until('min(tollhouse_part_up{part="vault"}) == 1')
    _until_ended(watched, "TollhouseVaultUnreachable")
    watched.tollhouse.ok("content", "set-policy", *here, "--may-drop")


def database_is_away(watched: Watched, ask: Ask) -> None:
    """Stop PostgreSQL under calls."""
    watched.parts.stop_postgres()
    _call_until(watched, "tollhouse_tick_failures_total", seconds=2)
    watched.until('tollhouse_part_up{part="database"} == 0')
    watched.until('ALERTS{alertname="TollhouseDatabaseUnreachable",alertstate="firing"}')
    ask()
    watched.parts.start_postgres()
    watched.until('min(tollhouse_part_up{part="database"}) == 1')
    _until_ended(watched, "TollhouseDatabaseUnreachable")
    _until_served(watched)


def table_is_away(watched: Watched, ask: Ask) -> None:
    """Take a table away, which is an error that nobody has foreseen."""
    watched.sql("ALTER TABLE wallet RENAME TO wallet_away")
    watched.tollhouse("wallets", "list", "--tenant", "demo")
    watched.sql("ALTER TABLE wallet_away RENAME TO wallet")
    watched.until('tollhouse_calls_total{code=~"INTERNAL|UNKNOWN"}')
    ask()


def worker_is_killed(watched: Watched, ask: Ask) -> None:
    """Kill a worker that has calls upstream: they go to suspense."""
    watched.fault("slow", delay_seconds=3)
    with ThreadPoolExecutor(6) as pool:
        for _ in range(6):
            pool.submit(watched.call, prompt("Hello"))
        watched.until("tollhouse_placed_calls > 0")
        for worker in _workers(watched.deployment.gateway):
            worker.kill()
    watched.clear_faults()
    watched.until("tollhouse_process_restarts_total > 0")
    watched.until("tollhouse_suspense_oldest_seconds > 0")
    ask()
    _until_served(watched)


def _workers(gateway: RunningStack) -> list[psutil.Process]:
    return gateway.processes("worker")


def certificate_is_spoilt(watched: Watched, ask: Ask) -> None:
    """Write something over the second server's certificate that is none."""
    watched.until("tollhouse_tls_certificate_expiry_seconds > 0")
    watched.second.certificate.write_text("nothing", encoding="utf-8")
    watched.until('tollhouse_tls_certificate_reloads_total{outcome="refused"}')
    ask()


def server_is_replaced(watched: Watched, ask: Ask) -> None:
    """Stop the second server and start it again, as a deploy does."""
    watched.second.stop()
    watched.until("up == 0")
    watched.second.start()
    watched.until("changes(tollhouse_start_timestamp_seconds[2m]) > 0")
    ask()


def trail_is_changed(watched: Watched, ask: Ask) -> None:
    """Have somebody change the audit trail past Tollhouse."""
    watched.sql("UPDATE audit_head SET sequence = sequence + 1 WHERE tenant_id = 'demo'")
    watched.until('tollhouse_audit_failures_total{cause="broken"}')
    ask()


def _call_until(watched: Watched, expression: str, *, seconds: float = 20) -> None:
    """Make calls, each on another connection and so at any worker, until Prometheus has an answer."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not watched.prometheus.query(expression):
        assert time.monotonic() < deadline, f"calls lead to nothing: {expression}"
        watched.call(prompt("Hello"), seconds=seconds)


def _until_ended(watched: Watched, alert: str) -> None:
    watched.until(f'absent(ALERTS{{alertname="{alert}",alertstate="firing"}})')


def _until_served(watched: Watched) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while sum(watched.call(prompt("Hello")) for _ in range(8)) < 8:
        assert time.monotonic() < deadline, "nothing is served after a trouble"
        time.sleep(0.2)


TROUBLES: tuple[Callable[[Watched, Ask], None], ...] = (
    finance_has_work,
    books_are_changed,
    month_is_closed,
    breaker_is_open,
    upstream_fails,
    queue_is_full,
    credentials_are_tried,
    table_is_away,
    server_is_replaced,
    certificate_is_spoilt,
    worker_is_killed,
    books_are_verified,
    vault_is_away,
    database_is_away,
    trail_is_changed,
    keys_are_changed,
)
"""In this order: after the last ones nothing is as it was."""
