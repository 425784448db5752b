"""GenerationService.ReportOnDeviceUsage: what devices did by themselves, from their signed receipts."""

from collections import Counter
from dataclasses import replace

import structlog
from tollhouse.v1 import devices_pb2 as pb

from tollhouse_server.api.call import Call
from tollhouse_server.api.device_messages import outcome_message, sealed_receipt, sums_of, use_message
from tollhouse_server.chargeback.labels import LiveBoundLabels
from tollhouse_server.devices.booking import OnDeviceBooks
from tollhouse_server.devices.terms import Outcome, Sealed, Verdict
from tollhouse_server.names import ProjectName

_log = structlog.get_logger(__name__)


class OnDeviceService:
    """Takes reports; which devices there are is the DeviceService's."""

    def __init__(self, books: OnDeviceBooks, labels: LiveBoundLabels) -> None:
        self._books = books
        self._labels = labels

    async def report_on_device_usage(
        self, request: pb.ReportOnDeviceUsageRequest, call: Call
    ) -> pb.ReportOnDeviceUsageResponse:
        project = ProjectName.parse(request.parent or call.principal.home, "parent")
        reported = [self._labelled(sealed_receipt(one), project, call) for one in request.receipts]
        outcomes = await self._books.take(project, reported, dry_run=request.validate_only)
        _tell(outcomes, project, call)
        verdicts = Counter(one.verdict for one in outcomes)
        return pb.ReportOnDeviceUsageResponse(
            outcomes=map(outcome_message, outcomes),
            accepted=use_message(sums_of(outcomes)),
            duplicate_count=verdicts[Verdict.DUPLICATE],
            refused_count=verdicts[Verdict.REFUSED],
        )

    def _labelled(self, sealed: Sealed, project: ProjectName, call: Call) -> Sealed:
        """Return a receipt with the labels that its record has, whatever the device says."""
        if sealed.receipt is None:
            return sealed
        labels = self._labels.on(
            sealed.receipt.labels,
            tenant=project.tenant,
            project=project.project,
            credential=call.principal.credential_id,
        )
        return replace(sealed, receipt=replace(sealed.receipt, labels=labels))


def _tell(outcomes: list[Outcome], project: ProjectName, call: Call) -> None:
    """Log how many receipts were refused and why: forgeries must not go unseen."""
    refusals = Counter(one.refusal.value for one in outcomes if one.refusal is not None)
    if refusals:
        _log.warning(
            "on_device_receipts_refused",
            project=str(project),
            credential=call.principal.credential_id,
            correlation_id=call.correlation_id,
            refusals=dict(refusals),
        )
