"""A deployment with TLS, an identity provider and workloads with certificates, made with the command line alone."""

import asyncio
import os
from pathlib import Path

from tests.drivers.authority import Authority
from tests.drivers.command_line import SOURCES, CommandLine
from tests.drivers.issuer import serving_issuer
from tests.drivers.stack import free_ports, running_stack_in

SPIFFE_ID = "spiffe://mesh.example/ns/demo/sa/reporter"
HERE = ("--tenant", "demo", "--department", "research", "--project", "assistant")


def command_line(folder: Path, endpoint: str, *, key: str = "", **files: Path) -> CommandLine:
    """Return the program for one caller: TLS to `endpoint`, with a key, a token, or the files of a certificate."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": SOURCES,
        "XDG_CONFIG_HOME": str(folder),
        "TOLLHOUSE_ENDPOINT": f"https://{endpoint}",
        "TOLLHOUSE_CA_FILE": str(folder / "ca.pem"),
        **({"TOLLHOUSE_API_KEY": key} if key else {}),
        **{f"TOLLHOUSE_{name.upper()}": str(file) for name, file in files.items()},
    }
    return CommandLine(environment=environment, directory=folder)


def let_them_call(admin: CommandLine, issuer: str) -> None:
    """Register ada at the issuer and a reporter with a certificate, both callers of one project."""
    admin.ok("identity-providers", "create", "corp", "-t", "demo", "--issuer", issuer, "--audience", "tollhouse",
             "--project-claim", "project")  # fmt: skip
    admin.ok("principals", "create", "ada", "-t", "demo", "--kind", "user", "--issuer", issuer, "--subject", "ada")
    admin.ok("principals", "create", "reporter", "-t", "demo")
    admin.ok("client-identities", "create", "reporter", *HERE, "--principal", "reporter", "--spiffe-id", SPIFFE_ID)
    for principal in ("ada", "reporter"):
        admin.ok("roles", "grant", principal, "caller", *HERE)


async def test_people_with_tokens_and_workloads_with_certificates_call_over_tls(stack_directory: Path) -> None:
    """Each is served and charged as the principal that he is; a key that is rotated goes on beside its successor."""
    authority = Authority.new()
    certificate, key = authority.server().write(stack_directory, "server")
    (stack_directory / "ca.pem").write_bytes(authority.pem)
    client_certificate, client_key = authority.workload(SPIFFE_ID).write(stack_directory, "client")
    [mtls_port] = free_ports(1)
    async with serving_issuer() as issuer:
        tls = {
            "tls_certificate_file": certificate,
            "tls_private_key_file": key,
            "tls_client_ca_file": stack_directory / "ca.pem",
            "mtls_port": mtls_port,
            "oidc_issuers": f'["{issuer.url}"]',
            "workers": 1,
        }

        def use() -> None:
            with running_stack_in(stack_directory, **tls) as stack:
                admin = command_line(stack_directory, stack.grpc, key=stack.admin_api_key)
                let_them_call(admin, issuer.url)
                ada = command_line(stack_directory, stack.grpc, key=issuer.token(project="assistant"))
                reporter = command_line(
                    stack_directory,
                    f"127.0.0.1:{mtls_port}",
                    client_certificate_file=client_certificate,
                    client_key_file=client_key,
                )

                for caller in (ada, reporter):
                    assert caller.ok("generate", "Hello", "--label", "who=me", "--no-stream")
                rotated = admin.json("keys", "rotate", stack.demo_api_key.split("_")[2], *HERE)
                for demo in (stack.demo_api_key, rotated["secret"]):
                    admin.ok("generate", "Hello", key=demo)

                booked = stack.query(
                    "SELECT principal_id, credential_id, project_id FROM usage_record WHERE labels ->> 'who' = 'me'"
                )
                assert sorted(tuple(row) for row in booked) == [
                    ("ada", "oidc:corp", "assistant"),
                    ("reporter", "mtls:reporter", "assistant"),
                ]

        await asyncio.to_thread(use)
