"""A second company, whose calls go where others do not: to Vertex AI, to a server of its own, past its policies."""

import json
from collections.abc import Mapping, Sequence

import grpc
from tollhouse.admin.v1 import accounts_pb2 as accounts
from tollhouse.admin.v1 import accounts_pb2_grpc as accounts_grpc
from tollhouse.admin.v1 import contents_pb2 as contents
from tollhouse.admin.v1 import contents_pb2_grpc as contents_grpc
from tollhouse.admin.v1 import data_policies_pb2 as policies
from tollhouse.admin.v1 import data_policies_pb2_grpc as policies_grpc
from tollhouse.admin.v1 import tenants_pb2 as tenants
from tollhouse.admin.v1 import tenants_pb2_grpc as tenants_grpc
from tollhouse.admin.v1 import upstream_keys_pb2 as keys
from tollhouse.admin.v1 import upstream_keys_pb2_grpc as keys_grpc
from tollhouse.v1 import generation_pb2 as g
from tollhouse_server.simulator.client import SimulatorClient

from tests.drivers.administration import Administration
from tests.drivers.callers import bearer, prompt
from tests.drivers.stack import RunningStack

PROJECT = "neighbour-project"
REGION = "europe-west4"
TIER = "nano"
"""Models for servers of one's own."""
VERTEX = g.RoutingOptions(kinds=[g.UPSTREAM_KIND_VERTEX])

_TENANT = "tenants/neighbour"


def ways(text: str) -> Sequence[g.GenerateContentRequest]:
    """Return a request for each upstream that only this company has."""
    return [prompt(text, routing=VERTEX), prompt(text, tier=TIER)]


def addresses(simulator: str) -> Mapping[str, str]:
    """Return the settings with which the simulator at a URL is Vertex AI and somebody's own server, too."""
    return {
        "TOLLHOUSE_UPSTREAM_ADDRESSES": json.dumps({"vertex": simulator, "openai_compatible": simulator}),
        "TOLLHOUSE_UPSTREAM_TOKEN_URLS": json.dumps([f"{simulator}/token"]),
    }


async def service_account(simulator: SimulatorClient) -> str:
    """Make what calls Vertex AI for the company, and return its key as Google's JSON."""
    email = f"caller@{PROJECT}.iam.gserviceaccount.com"
    return json.dumps(await simulator.issue_service_account_key(PROJECT, email=email))


def add_company(stack: RunningStack, service_account_key: str) -> str:
    """Create the company with accounts, policies and a caller; return the caller's key."""
    metadata = bearer(stack.admin_api_key)
    kinds = accounts.Account.Upstream
    with grpc.insecure_channel(stack.grpc) as channel:
        tenants_grpc.TenantServiceStub(channel).CreateTenant(
            tenants.CreateTenantRequest(tenant_id="neighbour"), metadata=metadata
        )
        for account_id, account, secret in (
            (
                "neighbour-vertex",
                accounts.Account(upstream=kinds.UPSTREAM_VERTEX, google_project=PROJECT, region=REGION),
                service_account_key,
            ),
            ("neighbour-server", accounts.Account(upstream=kinds.UPSTREAM_OPENAI_COMPATIBLE), "neighbour-server-key"),
        ):
            account.tenant = _TENANT
            accounts_grpc.AccountServiceStub(channel).CreateAccount(
                accounts.CreateAccountRequest(account_id=account_id, account=account), metadata=metadata
            )
            keys_grpc.UpstreamKeyServiceStub(channel).AddUpstreamKey(
                keys.AddUpstreamKeyRequest(parent=f"accounts/{account_id}", upstream_key_id="first", secret=secret),
                metadata=metadata,
            )
        _set_policies(channel, metadata)
        return Administration(channel, stack.admin_api_key, tenant=_TENANT).add_department("neighbour")


def _set_policies(channel: grpc.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
    """Have addresses masked both ways, and all that is said kept."""
    rule = policies.DataRule(
        detectors=["EMAIL"],
        directions=[policies.DATA_DIRECTION_PROMPT, policies.DATA_DIRECTION_ANSWER],
        action=policies.DATA_ACTION_MASK,
    )
    policies_grpc.DataPolicyServiceStub(channel).UpdateDataPolicy(
        policies.UpdateDataPolicyRequest(data_policy=policies.DataPolicy(name=f"{_TENANT}/dataPolicy", rules=[rule])),
        metadata=metadata,
    )
    kept = contents.ContentPolicy(
        name=f"{_TENANT}/contentPolicy", keep=contents.CONTENT_KEEP_PROMPTS_AND_ANSWERS, retention_days=1
    )
    contents_grpc.ContentServiceStub(channel).UpdateContentPolicy(
        contents.UpdateContentPolicyRequest(content_policy=kept), metadata=metadata
    )
