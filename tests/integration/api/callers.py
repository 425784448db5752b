"""Callers of the services, without a transport."""

import time
from uuid import uuid4

from tollhouse_server.api.call import Call
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.identity.principal import Principal

PAGES = PageTokens(b"a key for page tokens")
ROBOT = Principal(
    tenant_id="acme",
    principal_id="robot",
    credential_id="k1",
    credential_name="tenants/acme/departments/vision/projects/labels/apiKeys/k1",
    project_id="labels",
    department_ids=("research", "vision"),
    environment="live",
)


def by(principal: Principal = ROBOT, *, domain: str = "") -> Call:
    """Return a call with ten seconds left, authorised as the chain would have it: in the caller's tenant by default."""
    return Call(
        rpc="test",
        principal=principal,
        domain=domain or principal.tenant_id,
        deadline=time.monotonic() + 10,
        correlation_id=uuid4().hex,
    )
