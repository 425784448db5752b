"""The checks of this side: the way to the server, its certificate, the credential, clocks and versions."""

import json
import os
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from cryptography import x509
from tollhouse.admin.v1 import access_pb2, access_pb2_grpc
from tollhouse.admin.v1 import operations_pb2 as pb
from tollhouse.admin.v1.operations_pb2_grpc import OperationsServiceStub

from tollhouse_admin.connection import Connection
from tollhouse_admin.doctor_terms import Finding, Outcome, failure, fine, skipped, warning
from tollhouse_admin.endpoints import LOCAL_RUN, Endpoint, Tls
from tollhouse_admin.failures import Failure
from tollhouse_admin.names import last_id
from tollhouse_admin.status_texts import span_text

_SECONDS = 3.0
_EXPIRY_SECONDS = 14 * 86_400
_WARNING_APART, _FAILURE_APART = 2.0, 30.0
_MOST_SCOPES = 5

ON_THE_HOST = "On the server's host, with its settings: tollhouse-server doctor"


def address(endpoint: Endpoint) -> Finding:
    """See whether anybody listens where the server should be."""
    host, _, port = endpoint.target.rpartition(":")
    started_at = time.perf_counter()
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS):
            seconds = time.perf_counter() - started_at
    except OSError as error:
        seen = (
            f"{endpoint.target} does not answer ({error.strerror or type(error).__name__}); {endpoint.origin} names it"
        )
        return failure("cli.address", seen, _how_to_start(endpoint))
    return fine("cli.address", f"{endpoint.target} answers in {seconds * 1000:.0f} ms; {endpoint.origin} names it")


def _how_to_start(endpoint: Endpoint) -> str:
    if endpoint.origin != str(LOCAL_RUN):
        return f"See 'tollhouse config show'. {ON_THE_HOST}"
    ended = [name for name, pid in _local_processes() if not _lives(pid)]
    told = f"{LOCAL_RUN} is of a run that has ended ({', '.join(ended)})" if ended else f"see {LOCAL_RUN}"
    return f"Start it: make run; {told}"


def _local_processes() -> list[tuple[str, int]]:
    try:
        found = json.loads(LOCAL_RUN.read_text())["pids"]
        return [(str(name), int(pid)) for name, pid in found.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _lives(pid: int) -> bool:
    with suppress(ProcessLookupError, OverflowError):
        try:
            os.kill(pid, 0)
        except PermissionError:
            # It is another user's.
            return True
        return True
    return False


def certificate(endpoint: Endpoint) -> Finding:
    """See whether the server's certificate is valid, is for its name, and for how long."""
    name, tls = "cli.certificate", endpoint.tls
    if tls is None:
        return skipped(name, "the connection is not protected by TLS")
    advice = f"Give the server a new certificate; see it: openssl s_client -connect {endpoint.target} -showcerts"
    try:
        der = _peer_certificate(endpoint, tls, is_checked=True)
    except ssl.SSLCertVerificationError as error:
        return failure(name, f"{error.verify_message}{_dates(endpoint, tls)}", advice)
    except (OSError, ValueError) as error:
        return failure(name, f"no handshake with {endpoint.target} ({type(error).__name__})", advice)
    expires_at = x509.load_der_x509_certificate(der).not_valid_after_utc
    left = (expires_at - datetime.now(UTC)).total_seconds()
    seen = f"valid until {expires_at:%Y-%m-%d %H:%M} UTC, for another {span_text(left)}"
    return warning(name, seen, advice) if left < _EXPIRY_SECONDS else fine(name, seen)


def _dates(endpoint: Endpoint, tls: Tls) -> str:
    """Return when a certificate that is refused was to be valid."""
    try:
        found = x509.load_der_x509_certificate(_peer_certificate(endpoint, tls, is_checked=False))
    except (OSError, ValueError):
        return ""
    return (
        f": it is valid from {found.not_valid_before_utc:%Y-%m-%d %H:%M} to {found.not_valid_after_utc:%Y-%m-%d %H:%M}"
    )


def _peer_certificate(endpoint: Endpoint, tls: Tls, *, is_checked: bool) -> bytes:
    host, _, port = endpoint.target.rpartition(":")
    bare = host.strip("[]")
    context = ssl.create_default_context(cafile=str(Path(tls.ca_file).expanduser()) if tls.ca_file else None)
    context.set_alpn_protocols(["h2"])
    # As gRPC judges: by itself Python 3.13 asks for extensions, and an older one for the root; gRPC asks for neither.
    context.verify_flags = context.verify_flags & ~ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    if not is_checked:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if tls.client_certificate_file:
        context.load_cert_chain(tls.client_certificate_file, tls.client_key_file)
    with (
        socket.create_connection((bare, int(port)), timeout=_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=tls.server_name or bare) as protected,
    ):
        return protected.getpeercert(binary_form=True) or b""


def credential(connection: Connection) -> Iterator[Finding]:
    """See who the server says we are, and what its version and clock are."""
    stub = connection.stub(OperationsServiceStub)
    asked_at = time.time()
    try:
        session = connection.call(stub.GetSession, pb.GetSessionRequest())
        answered_at = time.time()
        roles = _roles(connection, session.principal)
    except Failure as error:
        yield refused("cli.credential", error)
        return
    yield (
        fine("cli.credential", f"{session.principal}: {roles}")
        if roles
        else warning("cli.credential", f"{session.principal} has no role", "Have one given: tollhouse roles grant")
    )
    yield _clock(session.read_time.ToNanoseconds() / 1e9, asked_at, answered_at)
    yield _version(session.version)


def _roles(connection: Connection, principal: str) -> str:
    stub = connection.stub(access_pb2_grpc.AccessServiceStub)
    access = connection.call(stub.ListAccess, access_pb2.ListAccessRequest(principal=principal)).access
    told = [f"{', '.join(sorted({last_id(grant.role) for grant in one.grants}))} on {one.scope}" for one in access]
    more = f" and {len(told) - _MOST_SCOPES} more" if len(told) > _MOST_SCOPES else ""
    return "; ".join(told[:_MOST_SCOPES]) + more


def _clock(theirs: float, asked_at: float, answered_at: float) -> Finding:
    apart = max(0.0, asked_at - theirs, theirs - answered_at)
    if apart <= _WARNING_APART:
        return fine("cli.clock", f"the server's clock and this one are less than {_WARNING_APART:.0f} s apart")
    judge = failure if apart > _FAILURE_APART else warning
    return judge("cli.clock", f"the server's clock and this one are {apart:.0f} s apart", "Set it: timedatectl status")


def _version(theirs: str) -> Finding:
    ours = version("tollhouse")
    seen = f"server {theirs}, command line {ours}"
    if theirs.split(".", maxsplit=1)[0] != ours.split(".")[0]:
        return warning("cli.version", seen, f"Install the server's version: pip install 'tollhouse[admin]=={theirs}'")
    return fine("cli.version", seen)


def diagnosis(connection: Connection, *, probes: bool, prefixes: list[str]) -> Iterator[Finding]:
    """Have the server check itself; who may not ask for it, or asks for a check that there is not, is told so."""
    stub = connection.stub(OperationsServiceStub)
    request = pb.GetDiagnosisRequest(probe_upstream=probes, checks=prefixes)
    try:
        answer = connection.call(stub.GetDiagnosis, request)
    except Failure as error:
        yield refused("server", error)
        return
    found = [check.name for check in answer.checks]
    if unknown := [one for one in prefixes if not one.startswith("cli") and not _begins_any(found, one)]:
        every = connection.call(stub.GetDiagnosis, pb.GetDiagnosisRequest()).checks
        names = ", ".join(check.name for check in every)
        for one in unknown:
            yield failure(one, "no check of the server begins with this", f"There are {names}.")
    for check in answer.checks:
        outcome = pb.CheckOutcome.Name(check.outcome).removeprefix("CHECK_OUTCOME_").lower()
        yield Finding(check.name, Outcome(outcome), check.seen, check.advice)


def _begins_any(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def refused(name: str, error: Failure) -> Finding:
    """Return what it means that the server did not answer a question."""
    if error.reason == "PERMISSION_DENIED":
        return skipped(name, f"{error.message} What the server checks is for administrators of the platform.")
    if error.reason == "STORE_UNAVAILABLE":
        # Nobody is let in then: it is the one check that the server need not make itself.
        return failure("postgres.reachable", "PostgreSQL does not answer the server, which lets nobody in", ON_THE_HOST)
    return failure(name, error.message, error.advice or ON_THE_HOST)
