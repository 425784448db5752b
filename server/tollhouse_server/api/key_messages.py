"""Upstream keys, their rotations and policies as messages."""

from tollhouse.admin.v1 import upstream_keys_pb2 as pb

from tollhouse_server.api.values import etag, timestamp
from tollhouse_server.custody.policy_store import policy_in
from tollhouse_server.custody.rotation_store import name_of
from tollhouse_server.custody.status import KeyStanding
from tollhouse_server.custody.tables import KeyAnomalyRow, KeyPolicyRow, KeyRotationRow
from tollhouse_server.names import KeyPolicyName, UpstreamKeyName
from tollhouse_server.routing.tables import UpstreamKeyRow


def key_message(row: UpstreamKeyRow, standing: KeyStanding | None = None) -> pb.UpstreamKey:
    """Return a key, with how it stands where that was asked for."""
    message = pb.UpstreamKey(
        name=str(UpstreamKeyName(row.account_id, row.key_id)),
        display_name=row.display_name,
        state=pb.UpstreamKey.State.Value(f"STATE_{row.state}"),
        vault_version=row.vault_version,
        fingerprint=row.fingerprint,
        provider_key=row.provider_key,
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=etag(row.version),
    )
    if standing is not None:
        asked = pb.UpstreamKey(
            rotation=standing.rotation,
            rotation_due_time=timestamp(standing.due_at),
            last_use_time=timestamp(standing.last_use_at),
            unusual_uses=map(_unusual, standing.unusual_uses),
        )
        message.MergeFrom(asked)
    return message


def _unusual(row: KeyAnomalyRow) -> pb.UnusualKeyUse:
    return pb.UnusualKeyUse(
        metric=pb.UnusualKeyUse.Metric.Value(f"METRIC_{row.metric}"),
        hour_start_time=timestamp(row.hour),
        amount=row.amount,
        usual_amount=row.usual,
        deviation=row.deviation,
    )


def rotation_message(row: KeyRotationRow) -> pb.KeyRotation:
    """Return a rotation or revocation."""
    state = "RUNNING" if row.ended_at is None else row.outcome
    return pb.KeyRotation(
        name=name_of(row),
        kind=pb.KeyRotation.Kind.Value(f"KIND_{row.kind}"),
        state=pb.KeyRotation.State.Value(f"STATE_{state}"),
        step=pb.KeyRotation.Step.Value(f"STEP_{row.step}"),
        old_key=str(UpstreamKeyName(row.account_id, row.old_key_id)),
        new_key=str(UpstreamKeyName(row.account_id, row.new_key_id)) if row.new_key_id else "",
        provider=pb.KeyProvider.Value(f"KEY_PROVIDER_{row.provider}"),
        error=row.error,
        remark=row.remark,
        failed_tries=row.tries,
        creator=row.actor,
        create_time=timestamp(row.created_at),
        step_time=timestamp(row.step_at),
        next_time=timestamp(row.next_at) if row.ended_at is None else None,
        end_time=timestamp(row.ended_at),
    )


def policy_message(account_id: str, row: KeyPolicyRow | None) -> pb.KeyPolicy:
    """Return how an account's keys are rotated; without a row, the defaults."""
    policy = policy_in(row)
    return pb.KeyPolicy(
        name=str(KeyPolicyName(account_id)),
        provider=pb.KeyProvider.Value(f"KEY_PROVIDER_{policy.provider.value}"),
        rotation_period_days=policy.rotation_period.days,
        drain_seconds=policy.drain_seconds,
        update_time=timestamp(row.updated_at) if row else None,
        etag=etag(row.version if row else 0),
    )
