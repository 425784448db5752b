"""The keeping of content of one worker, beside the plane that administers it: real PostgreSQL, real OpenBao."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

import orjson
from prometheus_client import CollectorRegistry
from tollhouse.admin.v1 import contents_pb2 as pb
from tollhouse_server.api.mutation import Mutations
from tollhouse_server.api.pages import PageTokens
from tollhouse_server.api.services.contents_service import ContentService
from tollhouse_server.audit.personal import PersonalData
from tollhouse_server.content.backlog import Backlog
from tollhouse_server.content.keeping import ContentKeeping
from tollhouse_server.content.policies import LiveContentPolicies
from tollhouse_server.content.writing import ContentWriter
from tollhouse_server.telemetry.content_metrics import ContentMetrics
from tollhouse_server.vault.client import VaultClient
from tollhouse_server.vault.connection import VaultAddress
from tollhouse_server.vault.tenant_keys import TenantKeys

from tests.drivers.openbao import TestOpenBao
from tests.integration.admin.plane import Plane
from tests.integration.audit.test_personal import witness_of

ACME = "tenants/acme"
EMEA = f"{ACME}/departments/emea"
CRM = f"{EMEA}/projects/crm"
PROMPT = orjson.dumps({"contents": [{"parts": [{"text": "canary-of-a-prompt"}]}]})
ANSWER = orjson.dumps({"candidates": [{"content": {"parts": [{"text": "canary-of-an-answer"}]}}]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls."""

    tenant_id: str = "acme"
    department_path: tuple[str, ...] = ("sales", "emea")
    project_id: str = "crm"
    principal_id: str = "ann"


@dataclass
class Archive:
    """What keeps content in a worker, beside the plane that administers it."""

    plane: Plane
    keys: TenantKeys
    policies: LiveContentPolicies
    backlog: Backlog
    registry: CollectorRegistry
    keeping: ContentKeeping = field(init=False)
    writer: ContentWriter = field(init=False)

    def __post_init__(self) -> None:
        metrics = ContentMetrics(self.registry)
        self.keeping = ContentKeeping(lambda: self.policies.current, self.keys, self.backlog, metrics)
        self.writer = ContentWriter(self.plane.database, self.keys, self.backlog, metrics)

    async def set_policy(self, *, keep: str = "PROMPTS_AND_ANSWERS", **fields: object) -> pb.ContentPolicy:
        """Say what of acme's calls is kept, and wait until it is in force."""
        policy = pb.ContentPolicy(name=f"{ACME}/contentPolicy", keep=f"CONTENT_KEEP_{keep}", **fields)  # type: ignore[arg-type]
        changed: pb.ContentPolicy = await self.plane.call(pb.UpdateContentPolicyRequest(content_policy=policy))
        await self.policies.reload()
        return changed

    async def offer(
        self,
        caller: Caller = Caller(),
        *,
        prompt: bytes = PROMPT,
        at: datetime | None = None,
        method: str = "generateContent",
    ) -> str | None:
        """Make a call as generation does, write what is kept of it, and return its name; None if nothing is kept."""
        recording = await self.keeping.begin(caller, request_id=uuid4(), method=method)
        if recording is None:
            return None
        attempt = uuid4()
        recording.settled(attempt_id=attempt, model="gemini", settled_at=at or datetime.now(UTC), prompt=prompt)
        if recording.wants_answer:
            recording.add(ANSWER)
        recording.close(is_whole=True)
        await self.write()
        return f"tenants/{caller.tenant_id}/contents/{attempt}"

    async def call(self, caller: Caller = Caller(), *, prompt: bytes = PROMPT, at: datetime | None = None) -> str:
        """Make a call of which something is kept, and return its name."""
        name = await self.offer(caller, prompt=prompt, at=at)
        assert name is not None
        return name

    async def write(self) -> None:
        """Write all that waits."""
        while len(self.backlog):
            batch = await self.backlog.take()
            left = await self.writer._write(batch)
            assert left == []
            self.backlog.done(batch)

    def counted(self, outcome: str) -> float:
        """Return how many calls had this outcome."""
        return self.registry.get_sample_value("tollhouse_contents_total", {"outcome": outcome}) or 0.0


@asynccontextmanager
async def opened(plane: Plane, openbao: TestOpenBao) -> AsyncIterator[Archive]:
    """Open an archive with nothing in memory, and serve ContentService on the plane with it."""
    address = VaultAddress(url=openbao.endpoint.address, timeout_seconds=2)
    gateway, custodian = (
        VaultClient(address, openbao.endpoint.gateway),
        VaultClient(address, openbao.endpoint.key_custodian),
    )
    keys = TenantKeys(plane.database, plane.watch, gateway=gateway, custodian=custodian)
    witness = witness_of(plane.database, PersonalData(keys))
    mutations, pages = Mutations(plane.database, b"f"), PageTokens(b"p")
    service = ContentService(plane.database, mutations, pages, keys=keys, witness=witness)
    plane.handlers["ContentService"] = service
    yield Archive(plane, keys, LiveContentPolicies(plane.database), Backlog(), CollectorRegistry())
    await gateway.close()
    await custodian.close()


async def reader(archive: Archive, *, scope: str = ACME) -> str:
    """Make somebody who may read content in a scope, and return his key."""
    return await archive.plane.key("acme", f"reader-{uuid4().hex[:6]}", ("content-reader", scope))
