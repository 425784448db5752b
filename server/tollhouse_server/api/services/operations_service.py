"""OperationsService: how it is going, and what is wrong."""

import socket
from datetime import UTC, datetime

from tollhouse.admin.v1 import operations_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.operations_messages import platform_message, result_message, scope_message
from tollhouse_server.api.values import timestamp
from tollhouse_server.names import PLATFORM, TenantName, parse_scope
from tollhouse_server.operations.counters import server_version
from tollhouse_server.operations.diagnosis import Diagnosis
from tollhouse_server.operations.status import LiveStatus


class OperationsService:
    """Reads only."""

    def __init__(self, status: LiveStatus, diagnosis: Diagnosis) -> None:
        self._status = status
        self._diagnosis = diagnosis

    async def get_status(self, request: pb.GetStatusRequest, call: Call) -> pb.Status:
        if not request.parent:
            return platform_message(PLATFORM, await self._status.of_platform())
        scope = parse_scope(request.parent, "parent")
        return scope_message(str(scope), await self._status.of_scope(scope, call.domain))

    async def get_diagnosis(self, request: pb.GetDiagnosisRequest, call: Call) -> pb.Diagnosis:
        results = await self._diagnosis.run(prefixes=tuple(request.checks), probes=request.probe_upstream)
        return pb.Diagnosis(
            version=server_version(),
            host=socket.gethostname(),
            read_time=timestamp(datetime.now(UTC)),
            checks=map(result_message, results),
        )

    async def get_session(self, request: pb.GetSessionRequest, call: Call) -> pb.Session:
        principal = call.principal
        is_of_platform = principal.tenant_id == PLATFORM
        return pb.Session(
            principal=principal.name,
            tenant=PLATFORM if is_of_platform else str(TenantName(principal.tenant_id)),
            project=principal.home if principal.project_id is not None else "",
            permissions=sorted(principal.permissions or ()),
            version=server_version(),
            read_time=timestamp(datetime.now(UTC)),
        )
