"""`tollhouse doctor`: what it checks from this side, what the server says of itself, and how it is told."""

import json
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.timestamp_pb2 import Timestamp
from tollhouse.admin.v1 import access_pb2
from tollhouse.admin.v1 import operations_pb2 as pb

from tests.drivers.authority import Authority
from tests.unit.admin_cli.canned import CannedServer, canned_server, refusal
from tests.unit.admin_cli.conftest import KEY, Run

OK, WARNING, FAILURE = pb.CHECK_OUTCOME_OK, pb.CHECK_OUTCOME_WARNING, pb.CHECK_OUTCOME_FAILURE


def diagnosis(*outcomes: "pb.CheckOutcome.ValueType") -> pb.Diagnosis:
    """A diagnosis with a check of each outcome."""
    return pb.Diagnosis(
        checks=[
            pb.CheckResult(
                name=f"part.check-{index}",
                outcome=one,
                seen=f"saw {index}",
                advice="" if one == OK else f"type {index}",
            )
            for index, one in enumerate(outcomes)
        ]
    )


def session(*, seconds_ahead: float = 0, version: str = "0.1.0") -> Callable[[object], pb.Session]:
    """What the server says of whoever asks, by a clock that is ahead."""

    def answer(_: object) -> pb.Session:
        at = Timestamp()
        at.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds_ahead))
        return pb.Session(principal="tenants/acme/principals/ann", tenant="tenants/acme", version=version, read_time=at)

    return answer


GRANTED = access_pb2.ListAccessResponse(
    access=[access_pb2.ScopeAccess(scope="platform", grants=[access_pb2.AccessFinding(role="roles/platform-admin")])]
)


@pytest.fixture
def well(server: CannedServer) -> CannedServer:
    """A server that is well."""
    server.answers |= {"GetSession": session(), "ListAccess": GRANTED, "GetDiagnosis": diagnosis(OK, OK)}
    return server


def found(run: Run, *options: str) -> dict[str, dict[str, str]]:
    """The findings of a run by their names."""
    return {one["name"]: one for one in json.loads(run("doctor", "-o", "json", *options).out)["checks"]}


def test_all_is_well(run: Run, well: CannedServer) -> None:
    """Every line says ok, or that there was nothing to look at."""
    result = run("doctor")

    assert result.code == 0, result.out
    assert {line.split()[0] for line in result.out.splitlines()} == {"ok", "-"}
    assert "tenants/acme/principals/ann: platform-admin on platform" in result.out
    assert result.err.splitlines()[-1] == "7 ok, 1 skipped"


@pytest.mark.parametrize(
    ("outcome", "options", "code"), [(WARNING, (), 0), (WARNING, ("--strict",), 1), (FAILURE, (), 1)]
)
def test_the_exit_code_says_whether_something_is_wrong(
    run: Run, well: CannedServer, outcome: "pb.CheckOutcome.ValueType", options: tuple[str, ...], code: int
) -> None:
    """A warning only where it is to count; and what to type stands below it."""
    well.answers["GetDiagnosis"] = diagnosis(OK, outcome)

    result = run("doctor", *options)

    assert result.code == code
    assert "saw 1" in result.out
    assert "-> type 1" in result.out


def test_options_reach_the_server(run: Run, well: CannedServer) -> None:
    """A real call upstream is made only when it is asked for."""
    found(run)
    found(run, "--probe", "--only", "part")

    plain, probing = (call.request for call in well.received if call.method == "GetDiagnosis")
    assert (plain.probe_upstream, list(plain.checks)) == (False, [])
    assert (probing.probe_upstream, list(probing.checks)) == (True, ["part"])


def test_checks_that_there_are_not_are_no_good_sign(run: Run, well: CannedServer) -> None:
    """Nothing was checked, so nothing is well; the names that there are help on."""
    well.answers["GetDiagnosis"] = lambda request: diagnosis(*([] if "vaultt" in request.checks else [OK, OK]))

    result = run("doctor", "--only", "vaultt")

    assert (result.code, "FAIL  vaultt" in result.out) == (1, True)
    assert "There are part.check-0, part.check-1." in result.out


def test_the_checks_of_this_side_can_be_asked_for_alone(run: Run, well: CannedServer) -> None:
    """They are made in any case."""
    well.answers["GetDiagnosis"] = diagnosis()

    assert run("doctor", "--only", "cli").code == 0


def test_without_a_configuration_it_says_how_to_make_one(run: Run) -> None:
    """Instead of ending."""
    result = run("doctor")

    assert result.code == 1
    assert "FAIL  cli.configuration" in result.out
    assert "tollhouse config set" in result.out


def test_a_server_that_is_down_is_told_with_what_to_type(run: Run, server: CannedServer, home: Path) -> None:
    """A local run that has ended is recognised by its processes."""
    (home / ".tollhouse").mkdir()
    kept = {"grpc": "127.0.0.1:9", "admin_api_key": KEY, "pids": {"worker-1": 2**30}}
    (home / ".tollhouse" / "run.json").write_text(json.dumps(kept))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TOLLHOUSE_ENDPOINT", "TOLLHOUSE_API_KEY"):
            patch.delenv(name)
        findings = found(run)

    assert findings["cli.address"]["outcome"] == "failure"
    assert "Start it: make run" in findings["cli.address"]["advice"]
    assert "worker-1" in findings["cli.address"]["advice"]
    assert findings["server"]["outcome"] == "skipped"


def test_a_server_elsewhere_that_is_down_is_to_be_looked_at_on_its_host(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a command for it there."""
    monkeypatch.setenv("TOLLHOUSE_ENDPOINT", "127.0.0.1:9")
    monkeypatch.setenv("TOLLHOUSE_API_KEY", KEY)

    assert "tollhouse-server doctor" in found(run)["cli.address"]["advice"]


def test_without_postgresql_that_is_the_line_that_fails(run: Run, server: CannedServer) -> None:
    """Once, although every question is refused."""
    away = refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "The ledger's database is not available.")
    server.answers |= {"GetSession": away, "GetDiagnosis": away}

    findings = found(run)

    assert [one["name"] for one in findings.values() if one["outcome"] == "failure"] == ["postgres.reachable"]


def test_who_is_no_administrator_gets_his_own_side(run: Run, well: CannedServer) -> None:
    """And is not told that something is wrong."""
    well.answers["GetDiagnosis"] = refusal(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "Not yours.")

    findings = found(run)

    assert findings["server"]["outcome"] == "skipped"
    assert findings["cli.credential"]["outcome"] == "ok"


@pytest.mark.parametrize(("seconds", "outcome"), [(0, "ok"), (-10, "warning"), (100, "failure")])
def test_clocks_are_held_against_each_other(run: Run, well: CannedServer, seconds: int, outcome: str) -> None:
    """By when the question was sent and answered."""
    well.answers["GetSession"] = session(seconds_ahead=seconds)

    assert found(run)["cli.clock"]["outcome"] == outcome


def test_another_major_version_is_a_warning(run: Run, well: CannedServer) -> None:
    """It says which to install."""
    well.answers["GetSession"] = session(version="7.0.0")

    told = found(run)["cli.version"]

    assert told["outcome"] == "warning"
    assert "7.0.0" in told["advice"]


def test_a_wrong_key_is_told_and_never_shown(run: Run, server: CannedServer) -> None:
    """The credential is the line that fails."""
    refused = refusal(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID", f"No such key as {KEY}.")
    server.answers |= {"GetSession": refused, "GetDiagnosis": refused}

    result = run("doctor")

    assert "FAIL  cli.credential" in result.out
    assert "verysecretpart" not in result.out


# --- certificates -----------------------------------------------------------------------------------------------------


def certified(folder: Path, *, address: str, ends_in: timedelta) -> tuple[Path, Path]:
    """A self-signed certificate for an address and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "doctor test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + ends_in)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def protected(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path, Path, Path], None]]:
    """Starts a server with a certificate and its key, and configures the command line for it and its authority."""
    started: list[object] = []

    def serve(certificate: Path, key: Path, authority: Path) -> None:
        context = canned_server(grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())]))
        server = context.__enter__()
        started.append(context)
        server.answers |= {"GetSession": session(), "ListAccess": GRANTED, "GetDiagnosis": diagnosis(OK)}
        monkeypatch.setenv("TOLLHOUSE_ENDPOINT", f"https://{server.target}")
        monkeypatch.setenv("TOLLHOUSE_API_KEY", KEY)
        monkeypatch.setenv("TOLLHOUSE_CA_FILE", str(authority))

    yield serve
    for context in started:
        context.__exit__(None, None, None)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("address", "days", "outcome", "words"),
    [
        ("127.0.0.1", 90, "ok", "valid until"),
        ("127.0.0.1", 3, "warning", "for another 3 d"),
        ("127.0.0.1", -1, "failure", "expired"),
        ("192.0.2.1", 90, "failure", "127.0.0.1"),
    ],
)
def test_certificates_are_judged_by_their_dates_and_names(
    run: Run, home: Path, protected: Callable[..., None], address: str, days: int, outcome: str, words: str
) -> None:
    """One that has expired says when it was valid."""
    certificate, key = certified(home, address=address, ends_in=timedelta(days=days, hours=1))
    protected(certificate, key, certificate)

    told = found(run, "--timeout", "5")["cli.certificate"]

    assert told["outcome"] == outcome
    assert words in told["seen"]


@pytest.mark.parametrize("authority", ["sloppy", "intermediate"])
def test_a_certificate_that_grpc_takes_is_fine(
    run: Run,
    home: Path,
    protected: Callable[[Path, Path, Path], None],
    monkeypatch: pytest.MonkeyPatch,
    authority: str,
) -> None:
    """Python 3.13 by itself wants all that RFC 5280 asks of an authority, an older one its root; gRPC wants neither."""
    monkeypatch.setattr(ssl, "create_default_context", as_python_3_13 if authority == "sloppy" else as_python_3_11)
    signs = Authority.new(is_thorough=False) if authority == "sloppy" else Authority.new().intermediate()
    (home / "ca.pem").write_bytes(signs.pem)
    protected(*signs.server(hours=24 * 90).write(home, "server"), home / "ca.pem")

    findings = found(run, "--timeout", "5")

    assert findings["cli.certificate"]["outcome"] == "ok", findings["cli.certificate"]
    assert findings["cli.credential"]["outcome"] == "ok"


_default_context = ssl.create_default_context


def as_python_3_13(**options: Any) -> ssl.SSLContext:
    """Return a context as strict as that of Python 3.13."""
    context = _default_context(**options)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def as_python_3_11(**options: Any) -> ssl.SSLContext:
    """Return a context that wants the root, as that of Python 3.11 does."""
    context = _default_context(**options)
    context.verify_flags &= ~ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
