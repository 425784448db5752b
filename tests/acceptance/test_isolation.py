"""The administrator of one tenant before the things of another: nothing works, and nothing is told."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import api_keys_pb2 as keys
from tollhouse.admin.v1 import api_keys_pb2_grpc as keys_grpc
from tollhouse.admin.v1 import devices_pb2 as devices
from tollhouse.admin.v1 import devices_pb2_grpc as devices_grpc
from tollhouse.admin.v1 import limit_increases_pb2 as increases
from tollhouse.admin.v1 import limit_increases_pb2_grpc as increases_grpc
from tollhouse.admin.v1 import limits_pb2 as limits
from tollhouse.admin.v1 import principals_pb2 as principals
from tollhouse.admin.v1 import principals_pb2_grpc as principals_grpc
from tollhouse.admin.v1 import roles_pb2 as roles
from tollhouse.admin.v1 import roles_pb2_grpc as roles_grpc
from tollhouse.admin.v1 import tenants_pb2 as tenants
from tollhouse.admin.v1 import tenants_pb2_grpc as tenants_grpc
from tollhouse_server import services  # noqa: F401 - registers every proto
from tollhouse_server.access.roles import ROLES
from tollhouse_server.api.permissions import rules

from tests.drivers.callers import bearer, reason_of
from tests.drivers.devices import FieldDevice
from tests.drivers.stack import RunningStack

_PROJECT = "tenants/demo/departments/research/projects/assistant"
_LIMIT = "tenants/demo/limits/research-monthly-budget"
_DEVICE = "tenants/demo/devices/for-isolation"
_RIVAL = "tenants/rival"
_TENANT_ROLES = tuple(sorted(name for name in ROLES if name not in {"platform-admin", "key-custodian"}))
# The parent of what a service lists or creates, where it is not the tenant itself.
_PARENTS = {
    "ProjectService": "tenants/demo/departments/research",
    "ApiKeyService": _PROJECT,
    "GenerationService": _PROJECT,
    "UsageService": _PROJECT,
}


@dataclass(frozen=True, slots=True)
class Rival:
    """Another tenant, with a key for each role that a tenant can give."""

    keys: dict[str, str]
    names: dict[str, str]


@pytest.fixture(scope="module")
def rival(running_stack: RunningStack) -> Iterator[Rival]:
    """Make the tenant and its people."""
    metadata = bearer(running_stack.admin_api_key)
    with grpc.insecure_channel(running_stack.grpc) as channel:
        tenants_grpc.TenantServiceStub(channel).CreateTenant(
            tenants.CreateTenantRequest(tenant_id="rival"), metadata=metadata
        )
        ask_for_increase(channel, metadata)
        add_device(channel, metadata)
        yield Rival({role: add_person(channel, metadata, role) for role in _TENANT_ROLES}, names_of(running_stack))


def ask_for_increase(channel: grpc.Channel, metadata: Any) -> None:
    """Ask for a temporary increase of a limit of tenant demo, so that there is one."""
    increase = increases.LimitIncrease(limit=_LIMIT, reason="a fair", amount=limits.LimitAmount(money=Money(units=1)))
    increase.expire_time.FromSeconds(int(time.time()) + 3600)
    increases_grpc.LimitIncreaseServiceStub(channel).RequestLimitIncrease(
        increases.RequestLimitIncreaseRequest(
            parent="tenants/demo", limit_increase_id="for-isolation", limit_increase=increase
        ),
        metadata=metadata,
    )


def add_device(channel: grpc.Channel, metadata: Any) -> None:
    """Register a device of tenant demo, so that there is one."""
    device = devices.Device(project=_PROJECT, public_key=FieldDevice(_DEVICE).public_key)
    devices_grpc.DeviceServiceStub(channel).CreateDevice(
        devices.CreateDeviceRequest(parent="tenants/demo", device_id="for-isolation", device=device), metadata=metadata
    )


def add_person(channel: grpc.Channel, metadata: Any, role: str) -> str:
    """Make a service account with one role on the whole tenant and return its key."""
    name = f"{_RIVAL}/principals/{role}"
    account = principals.Principal(kind=principals.Principal.KIND_SERVICE_ACCOUNT)
    principals_grpc.PrincipalServiceStub(channel).CreatePrincipal(
        principals.CreatePrincipalRequest(parent=_RIVAL, principal_id=role, principal=account), metadata=metadata
    )
    roles_grpc.RoleServiceStub(channel).CreateRoleGrant(
        roles.CreateRoleGrantRequest(
            parent=_RIVAL, role_grant=roles.RoleGrant(principal=name, role=f"roles/{role}", scope=_RIVAL)
        ),
        metadata=metadata,
    )
    answer = keys_grpc.ApiKeyServiceStub(channel).CreateApiKey(
        keys.CreateApiKeyRequest(parent=_RIVAL, api_key=keys.ApiKey(principal=name)), metadata=metadata
    )
    return str(answer.secret)


def names_of(stack: RunningStack) -> dict[str, str]:
    """Return the name of an existing thing of tenant demo for each service that has names."""
    grant = stack.query("SELECT grant_id FROM role_grant WHERE tenant_id = 'demo' LIMIT 1")[0][0]
    return {
        "TenantService": "tenants/demo",
        "DepartmentService": "tenants/demo/departments/research",
        "ProjectService": _PROJECT,
        "PrincipalService": "tenants/demo/principals/assistant-service",
        "ApiKeyService": f"{_PROJECT}/apiKeys/{stack.demo_api_key.split('_')[2]}",
        "RoleService": f"tenants/demo/roleGrants/{grant}",
        "LimitService": _LIMIT,
        "LimitIncreaseService": "tenants/demo/limitIncreases/for-isolation",
        "DeviceService": _DEVICE,
        "LedgerService": f"tenants/demo/suspense/{UUID(int=0)}",
        "RoutingPolicyService": "tenants/demo/departments/research/routingPolicy",
        "ModelService": "models/gemini-3.8-flash",
    }


def foreign_rpcs() -> list[str]:
    """Return every RPC whose request names something of a tenant, and those of the catalogue that all tenants share."""
    platform = ("AccountService", "UpstreamKeyService", "UsageExportService")
    return sorted(
        rule.rpc
        for rule in rules().values()
        if (rule.fields and service_of(rule.rpc) not in platform) or service_of(rule.rpc) == "ModelService"
    )


def service_of(rpc: str) -> str:
    """Return the service's short name."""
    return rpc.split(".")[-2]


def request_about(rpc: str, names: dict[str, str], *, exists: bool) -> Message:
    """Build a request about a thing of tenant demo that is there, or about one that is not."""
    service, _, method = rpc.rpartition(".")
    found = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]
    message: Any = GetMessageClass(found.input_type)()
    fields = rules()[rpc].fields
    for field in fields:
        name = value_of(field, service_of(rpc), names)
        *path, last = field.split(".")
        target = message
        for part in path:
            target = getattr(target, part)
        # Beside a narrower name the parent stays: names of two tenants in one request are another mistake.
        is_beside = field == "parent" and len(fields) > 1
        setattr(target, last, name if exists or is_beside else absent(name))
    filled: Message = message
    return filled


def value_of(field: str, service: str, names: dict[str, str]) -> str:
    """Return an existing name of the kind that a field takes."""
    if field.rsplit(".", maxsplit=1)[-1] == "name":
        return names[service]
    if field == "parent":
        return _PARENTS.get(service, "tenants/demo")
    return "tenants/demo/departments/research"


def absent(name: str) -> str:
    """Return a name of the same kind that nothing bears."""
    if name.endswith("/routingPolicy"):
        return f"{absent(name.removesuffix('/routingPolicy'))}/routingPolicy"
    return "tenants/ghost" if name == "tenants/demo" else f"{name.rpartition('/')[0]}/{'z' * 12}"


@pytest.mark.parametrize("rpc", foreign_rpcs())
def test_no_role_of_another_tenant_learns_anything(running_stack: RunningStack, rival: Rival, rpc: str) -> None:
    """PERMISSION_DENIED in the same words, whether the thing is there or not, for every role."""
    service, _, method = rpc.rpartition(".")
    with grpc.insecure_channel(running_stack.grpc) as channel:
        is_stream = method.startswith(("Stream", "Verify"))
        kind = channel.unary_stream if is_stream else channel.unary_unary
        call: Any = kind(f"/{service}/{method}")
        for role, key in rival.keys.items():
            told = []
            for exists in (True, False):
                request = request_about(rpc, rival.names, exists=exists)
                with pytest.raises(grpc.RpcError) as raised:
                    answer = call(request.SerializeToString(), metadata=bearer(key), timeout=10)
                    _ = list(answer) if is_stream else answer
                error = raised.value
                said = str(error.details())
                told.append((error.code(), reason_of(error), said.split(" on ", maxsplit=1)[0]))
            assert told[0] == told[1], role
            assert told[0][:2] == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"), (role, told)
