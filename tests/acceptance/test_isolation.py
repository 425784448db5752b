"""The administrator of one tenant before the things of another: nothing works, and nothing is told."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.type.money_pb2 import Money
from tollhouse.admin.v1 import api_keys_pb2 as keys
from tollhouse.admin.v1 import api_keys_pb2_grpc as keys_grpc
from tollhouse.admin.v1 import devices_pb2 as devices
from tollhouse.admin.v1 import devices_pb2_grpc as devices_grpc
from tollhouse.admin.v1 import groups_pb2 as groups
from tollhouse.admin.v1 import groups_pb2_grpc as groups_grpc
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
from tollhouse_server.access.roles import PLATFORM_ROLES, ROLES
from tollhouse_server.api.permissions import rules

from tests.drivers.callers import bearer, reason_of
from tests.drivers.devices import FieldDevice
from tests.drivers.isolation import PROJECT, method_of, request_about
from tests.drivers.stack import RunningStack

_LIMIT = "tenants/demo/limits/research-monthly-budget"
_DEVICE = "tenants/demo/devices/for-isolation"
_RIVAL = "tenants/rival"
_TENANT_ROLES = tuple(sorted(ROLES.keys() - PLATFORM_ROLES))


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
        add_group_and_role(channel, metadata)
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
    device = devices.Device(project=PROJECT, public_key=FieldDevice(_DEVICE).public_key)
    devices_grpc.DeviceServiceStub(channel).CreateDevice(
        devices.CreateDeviceRequest(parent="tenants/demo", device_id="for-isolation", device=device), metadata=metadata
    )


def add_group_and_role(channel: grpc.Channel, metadata: Any) -> None:
    """Make a group and a role of tenant demo, so that there are some."""
    groups_grpc.GroupServiceStub(channel).CreateGroup(
        groups.CreateGroupRequest(parent="tenants/demo", group_id="for-isolation"), metadata=metadata
    )
    role = roles.Role(permissions=["limits.get"])
    roles_grpc.RoleServiceStub(channel).CreateRole(
        roles.CreateRoleRequest(parent="tenants/demo", role_id="for-isolation", role=role), metadata=metadata
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
    """Return the names of things of tenant demo that the database chose."""
    grant = stack.query("SELECT grant_id FROM role_grant WHERE tenant_id = 'demo' LIMIT 1")[0][0]
    return {
        "RoleService": f"tenants/demo/roleGrants/{grant}",
        "ApiKeyService": f"{PROJECT}/apiKeys/{stack.demo_api_key.split('_')[2]}",
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


def asking_roles(rpc: str) -> tuple[str, str]:
    """Return the role that has the most, and another, so that all roles have their turn among the RPCs.

    That none has more on foreign ground than another, for every RPC, is seen in tests/unit/access.
    """
    others = [role for role in _TENANT_ROLES if role != "tenant-admin"]
    return "tenant-admin", others[foreign_rpcs().index(rpc) % len(others)]


@pytest.mark.parametrize("rpc", foreign_rpcs())
def test_no_role_of_another_tenant_learns_anything(running_stack: RunningStack, rival: Rival, rpc: str) -> None:
    """PERMISSION_DENIED in the same words, whether the thing is there or not."""
    service, _, method = rpc.rpartition(".")
    with grpc.insecure_channel(running_stack.grpc) as channel:
        is_stream = method_of(rpc).server_streaming
        kind = channel.unary_stream if is_stream else channel.unary_unary
        call: Any = kind(f"/{service}/{method}")
        for role in asking_roles(rpc):
            told = []
            for exists in (True, False):
                request = request_about(rpc, rival.names, exists=exists)
                with pytest.raises(grpc.RpcError) as raised:
                    answer = call(request.SerializeToString(), metadata=bearer(rival.keys[role]), timeout=10)
                    _ = list(answer) if is_stream else answer
                error = raised.value
                said = str(error.details())
                told.append((error.code(), reason_of(error), said.split(" on ", maxsplit=1)[0]))
            assert told[0] == told[1], role
            assert told[0][:2] == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"), (role, told)
