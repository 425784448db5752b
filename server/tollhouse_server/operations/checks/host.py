"""Whether this server's own parts are well: metrics, processes, certificate, disk, transport, settings."""

import asyncio
import ipaddress
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.x509 import load_pem_x509_certificates

from tollhouse_server.operations.checks.scrape import NoMetrics
from tollhouse_server.operations.checks.terms import (
    Finding,
    Surroundings,
    duration_text,
    failure,
    fine,
    size_text,
    skipped,
    warning,
)
from tollhouse_server.settings import Settings
from tollhouse_server.telemetry.declarations.processes import PROCESSES
from tollhouse_server.transport_choice import EnvoyMissing, chosen

_EXPIRY_SECONDS: Final = 14 * 86_400
_FREE_RATIO, _FREE_BYTES = 0.1, 2**30


async def metrics_port(surroundings: Surroundings) -> Finding:
    """See that Prometheus would get an answer."""
    url = surroundings.scrape.url
    try:
        found = await surroundings.scrape.samples(PROCESSES)
    except NoMetrics as error:
        return failure(f"{url} does not answer ({error})", f"See the supervisor's log, and what listens: curl {url}")
    return fine(f"{url} answers") if found else failure(f"{url} knows no process", "Start the server anew")


async def processes(surroundings: Surroundings) -> Finding:
    """See that all processes of this server live."""
    found = await surroundings.scrape.samples(PROCESSES)
    living = {one.labels["role"]: int(one.value) for one in found}
    wanted = {"worker": surroundings.settings.workers, "housekeeper": 1}
    seen = ", ".join(f"{living.get(role, 0)} of {count} {role}s" for role, count in wanted.items())
    missing = [role for role, count in wanted.items() if living.get(role, 0) < count]
    if missing:
        return failure(seen, "See process_ended in the server's log: it is started again and ends again")
    return fine(seen)


async def certificate(surroundings: Surroundings) -> Finding:
    """See how long the server's certificate is valid."""
    file = surroundings.settings.tls_certificate_file
    if file is None:
        return skipped("the server has no certificate: TLS is not its own")
    try:
        chain = load_pem_x509_certificates(await asyncio.to_thread(file.read_bytes))
    except (OSError, ValueError) as error:
        return failure(f"{file} cannot be read ({type(error).__name__})", f"See it: openssl x509 -in {file} -text")
    first = min(chain, key=lambda one: one.not_valid_after_utc)
    now = datetime.now(UTC)
    left = (first.not_valid_after_utc - now).total_seconds()
    until = f"{first.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    advice = f"Write a new one into {file}; it is taken within seconds, without a restart"
    if left <= 0:
        return failure(f"expired at {until}", advice)
    last = max(one.not_valid_before_utc for one in chain)
    if last > now:
        return failure(f"valid only from {last:%Y-%m-%d %H:%M} UTC on", f"See the clock: timedatectl status. {advice}")
    seen = f"valid until {until}, for another {duration_text(left)}"
    return warning(seen, advice) if left < _EXPIRY_SECONDS else fine(seen)


async def disk(surroundings: Surroundings) -> Finding:
    """See that there is room where the server writes."""
    settings = surroundings.settings
    places = [one for one in (settings.state_dir, settings.audit_anchor_dir, settings.delivery_dir) if one is not None]
    found = [(_existing(place), place) for place in places]
    fullest, place = min(found, key=lambda one: shutil.disk_usage(one[0]).free)
    usage = shutil.disk_usage(fullest)
    seen = f"{size_text(usage.free)} of {size_text(usage.total)} free for {place}"
    if usage.free < _FREE_BYTES // 4:
        return failure(seen, f"Make room, or move it: df -h {fullest}")
    if usage.free < _FREE_BYTES or usage.free < usage.total * _FREE_RATIO / 2:
        return warning(seen, f"Make room: df -h {fullest}")
    return fine(seen)


def _existing(place: Path) -> Path:
    """Return the place, or what is above it and is there already."""
    whole = place.absolute()
    return next(one for one in (whole, *whole.parents) if one.exists())


async def transport(surroundings: Surroundings) -> Finding:
    """See what serves gRPC, and why it is not Envoy where that would have been taken."""
    mending = "Install it, or set TOLLHOUSE_TRANSPORT=grpcio"
    try:
        choice = chosen(surroundings.settings.transport)
    except EnvoyMissing as missing:
        return failure(missing.message(), mending)
    seen = f"{choice.transport}: {choice.why}".removesuffix(": ")
    return warning(seen, mending) if choice.why and choice.transport == "grpcio" else fine(seen)


async def settings(surroundings: Surroundings) -> Finding:
    """Look for settings that are for a laptop, where this is none."""
    odd = list(_odd(surroundings.settings))
    if not odd:
        return fine("none that looks wrong")
    return warning("; ".join(text for text, _ in odd), "; ".join(advice for _, advice in odd))


def _odd(settings: Settings) -> Iterator[tuple[str, str]]:
    is_public = not _is_loopback(settings.bind_address)
    if is_public and settings.tls_certificate_file is None:
        yield (
            "the port is open to the network without TLS",
            "set TOLLHOUSE_TLS_CERTIFICATE_FILE, or keep a proxy before it",
        )
    if is_public and settings.reflection:
        yield "reflection is on", "unset TOLLHOUSE_REFLECTION"
    if is_public and settings.simulator_url is not None:
        yield "calls go to the simulator", "unset TOLLHOUSE_SIMULATOR_URL and TOLLHOUSE_GEMINI_BASE_URL"
    if settings.suspense_policy != "ceiling":
        yield (
            f"suspense is booked at {settings.suspense_policy}, so crashes can pass budgets",
            ("unset TOLLHOUSE_SUSPENSE_POLICY"),
        )
    if (settings.vault_address or "").startswith("http://") and is_public:
        yield "keys come from Vault in clear", "name an https address in TOLLHOUSE_VAULT_ADDRESS"
    if settings.log_level == "debug":
        yield "everything is logged", "unset TOLLHOUSE_LOG_LEVEL"
    if is_public and settings.audit_anchor_dir is None:
        yield "the audit trail's anchor lies beside the server", "set TOLLHOUSE_AUDIT_ANCHOR_DIR to another disk"


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
