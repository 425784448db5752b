"""Imports, results and differences of Google's bill as messages."""

from decimal import Decimal
from typing import Final

from tollhouse.admin.v1 import reconciliation_pb2 as pb

from tollhouse_server.api.values import etag, money, timestamp
from tollhouse_server.names import TenantName
from tollhouse_server.reconciliation.import_store import BillImport
from tollhouse_server.reconciliation.map_store import SkuMapVersion
from tollhouse_server.reconciliation.policy import POLICY_NAME, ReconciliationPolicy
from tollhouse_server.reconciliation.variance_store import Reconciliation, Share
from tollhouse_server.reconciliation.variances import Variance

MILLIONTHS_PER_PERCENT: Final = 10_000


def import_message(found: BillImport) -> pb.BillImport:
    """Return an import; sums only where it is complete."""
    message = pb.BillImport(
        name=found.name,
        file_name=found.file_name,
        format=pb.BillFormat.Value(f"BILL_FORMAT_{found.format}"),
        state=pb.BillImport.State.Value(f"STATE_{found.state}"),
        line_count=found.line_count,
        create_time=timestamp(found.created_at),
        creator=found.created_by,
    )
    if found.completed_at is not None:
        message.MergeFrom(
            pb.BillImport(
                new_line_count=found.new_line_count,
                cost=money(found.cost_nanos),
                credits=money(found.credits_nanos),
                first_day=f"{found.first_day}" if found.first_day else "",
                last_day=f"{found.last_day}" if found.last_day else "",
                currencies=found.currencies,
                complete_time=timestamp(found.completed_at),
            )
        )
    return message


def reconciliation_message(result: Reconciliation) -> pb.BillReconciliation:
    """Return the result of a month."""
    return pb.BillReconciliation(
        name=result.name,
        month=result.month,
        booked=money(result.booked_nanos),
        billed=money(result.billed_nanos),
        credits=money(result.credits_nanos),
        unexplained=money(result.unexplained_nanos),
        compared_count=result.compared_count,
        variance_count=result.variance_count,
        blocking_count=result.blocking_count,
        newest_export_time=timestamp(result.newest_export),
        sku_map_version=result.sku_map_version,
        run_time=timestamp(result.run_at),
        runner=result.run_by,
    )


def variance_message(variance: Variance) -> pb.BillVariance:
    """Return a difference with its findings."""
    line, key = variance.line, variance.line.key
    return pb.BillVariance(
        name=variance.name,
        month=variance.month,
        day=key.day.isoformat(),
        google_project=key.project,
        model=key.model,
        sku=key.sku,
        google_sku=line.google_sku,
        booked=money(line.booked_nanos),
        billed=money(line.billed_nanos),
        credits=money(line.credits_nanos),
        variance=money(line.variance_nanos),
        unexplained=money(variance.unexplained_nanos),
        accepted=money(variance.accepted_nanos),
        booked_quantity=line.booked_quantity,
        billed_quantity=line.billed_quantity,
        findings=_findings(variance),
        blocking=variance.is_blocking,
        concerns_all=line.concerns_all,
        state=pb.BillVariance.State.Value(f"STATE_{variance.state}"),
        accepter=variance.accepted_by,
        acceptance_reason=variance.acceptance_reason,
        accept_time=timestamp(variance.accepted_at),
        etag=etag(variance.version),
    )


def _findings(variance: Variance) -> list[pb.BillVariance.Finding]:
    return [
        pb.BillVariance.Finding(
            reason=pb.BillVariance.Reason.Value(f"REASON_{one.reason.value}"),
            amount=money(one.amount_nanos),
            detail=one.detail,
        )
        for one in variance.line.findings
    ]


def true_up_message(share: Share) -> pb.TrueUp:
    """Return a tenant's part of an accepted difference."""
    return pb.TrueUp(
        tenant=str(TenantName(share.tenant_id)), amount=money(share.amount_nanos), basis=money(share.basis_nanos)
    )


def policy_message(policy: ReconciliationPolicy) -> pb.ReconciliationPolicy:
    """Return the platform's bounds."""
    return pb.ReconciliationPolicy(
        name=POLICY_NAME,
        absolute=money(policy.absolute_nanos),
        percent=f"{(Decimal(policy.share_millionths) / MILLIONTHS_PER_PERCENT).normalize():f}",
        rounding_per_line=money(policy.rounding_nanos),
        etag=etag(policy.version),
    )


def map_message(found: SkuMapVersion) -> pb.SkuMap:
    """Return a file of rules."""
    return pb.SkuMap(
        version=found.version,
        content=found.content,
        rule_count=found.rule_count,
        create_time=timestamp(found.created_at),
        creator=found.created_by,
    )
