"""A deployment with TLS, an identity provider and workloads with certificates, made with the command line alone."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from tollhouse_admin.__main__ import execute

from tests.drivers.authority import Authority
from tests.drivers.issuer import serving_issuer
from tests.drivers.stack import RunningStack, free_ports, running_stack_in

SPIFFE_ID = "spiffe://mesh.example/ns/demo/sa/reporter"
HERE = ("--tenant", "demo", "--department", "research", "--project", "assistant")


@dataclass(frozen=True, slots=True)
class Caller:
    """The program `tollhouse` for one caller, in this process: its variables say where and who."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    variables: dict[str, str]

    def ok(self, *arguments: str) -> str:
        """Run a command that must succeed and return its stdout."""
        self.capsys.readouterr()
        with self.monkeypatch.context() as context:
            for name, value in self.variables.items():
                context.setenv(f"TOLLHOUSE_{name}", value)
            status = execute(arguments)
        said = self.capsys.readouterr()
        assert status == 0, said.err
        return said.out


def let_them_call(admin: Caller, issuer: str) -> None:
    """Register ada at the issuer and a reporter with a certificate, both callers of one project."""
    provider = ("--issuer", issuer, "--audience", "tollhouse", "--project-claim", "project")
    admin.ok("identity-providers", "create", "corp", "-t", "demo", *provider)
    admin.ok("principals", "create", "ada", "-t", "demo", "--kind", "user", "--issuer", issuer, "--subject", "ada")
    admin.ok("principals", "create", "reporter", "-t", "demo")
    admin.ok("client-identities", "create", "reporter", *HERE, "--principal", "reporter", "--spiffe-id", SPIFFE_ID)
    for principal in ("ada", "reporter"):
        admin.ok("roles", "grant", principal, "caller", *HERE)


def booked(stack: RunningStack) -> list[tuple[str, str, str]]:
    """Return whose calls were booked, by which credential, for which project."""
    rows = stack.query("SELECT principal_id, credential_id, project_id FROM usage_record WHERE labels ->> 'who' = 'me'")
    return sorted((row[0], row[1], row[2]) for row in rows)


async def test_people_with_tokens_and_workloads_with_certificates_call_over_tls(
    stack_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is served and charged as the principal that he is; a key that is rotated goes on beside its successor."""
    authority = Authority.new()
    certificate, key = authority.server().write(stack_directory, "server")
    client_certificate, client_key = authority.workload(SPIFFE_ID).write(stack_directory, "client")
    authorities = stack_directory / "ca.pem"
    authorities.write_bytes(authority.pem)
    [mtls_port] = free_ports(1)
    settings = {
        "tls_certificate_file": certificate,
        "tls_private_key_file": key,
        "tls_client_ca_file": authorities,
        "mtls_port": mtls_port,
        "workers": 1,
    }

    def caller(endpoint: str, **variables: str) -> Caller:
        common = {"ENDPOINT": f"https://{endpoint}", "CA_FILE": str(authorities)}
        return Caller(monkeypatch, capsys, common | variables)

    def use(issuer: str, token: str) -> None:
        with running_stack_in(stack_directory, oidc_issuers=json.dumps([issuer]), **settings) as stack:
            admin, ada = caller(stack.grpc, API_KEY=stack.admin_api_key), caller(stack.grpc, API_KEY=token)
            files = {"CLIENT_CERTIFICATE_FILE": str(client_certificate), "CLIENT_KEY_FILE": str(client_key)}
            reporter = caller(f"127.0.0.1:{mtls_port}", **files)
            let_them_call(admin, issuer)

            for one in (ada, reporter):
                one.ok("generate", "Hello", "--label", "who=me", "--no-stream")
            rotated = json.loads(admin.ok("keys", "rotate", stack.demo_api_key.split("_")[2], *HERE, "-o", "json"))
            for demo in (stack.demo_api_key, rotated["secret"]):
                caller(stack.grpc, API_KEY=demo).ok("generate", "Hello")

            assert booked(stack) == [("ada", "oidc:corp", "assistant"), ("reporter", "mtls:reporter", "assistant")]

    monkeypatch.setenv("XDG_CONFIG_HOME", str(stack_directory))
    async with serving_issuer() as issuer:
        await asyncio.to_thread(use, issuer.url, issuer.token(project="assistant"))
