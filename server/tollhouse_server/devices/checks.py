"""What a receipt is held against: who signed it, when, and whether its numbers can be. Pure; nothing is booked here."""

from datetime import datetime

from tollhouse_server.devices.keys import is_signed_by
from tollhouse_server.devices.tables import DeviceRow
from tollhouse_server.devices.terms import (
    LONGEST_AGO,
    LONGEST_AHEAD,
    MAX_REQUEST_TOKENS,
    Outcome,
    Receipt,
    Refusal,
    Sealed,
    Verdict,
)
from tollhouse_server.names import ProjectName


def refused(refusal: Refusal, message: str, receipt: Receipt | None = None) -> Outcome:
    """Return the outcome of a receipt that is not booked."""
    return Outcome(verdict=Verdict.REFUSED, refusal=refusal, message=message, receipt=receipt)


def check_origin(sealed: Sealed, device: DeviceRow | None, project: ProjectName) -> Outcome | None:
    """Return why a receipt is not one of a device of the project, None if it is.

    Who cannot sign for a device of another project does not learn that there is one.
    """
    receipt = sealed.receipt
    if receipt is None:
        return refused(Refusal.MALFORMED, sealed.problem)
    is_known = device is not None and receipt.device.tenant == project.tenant
    is_genuine = (
        is_known
        and device is not None
        and is_signed_by(device.public_key, signed=sealed.signed, signature=sealed.signature)
    )
    is_foreign = device is None or device.project_id != project.project
    if not is_known or (is_foreign and not is_genuine):
        return refused(Refusal.DEVICE_UNKNOWN, f"{receipt.device} is not a device of {project}.", receipt)
    if not is_genuine:
        return refused(Refusal.SIGNATURE_INVALID, f"The signature is not that of {receipt.device}.", receipt)
    if is_foreign:
        return refused(Refusal.OTHER_PROJECT, f"{receipt.device} does not belong to {project}.", receipt)
    return None


def check_content(receipt: Receipt, now: datetime) -> Outcome | None:
    """Return why what a receipt says cannot be, None if it can."""
    if receipt.started_at > now + LONGEST_AHEAD:
        ahead = int(LONGEST_AHEAD.total_seconds() // 60)
        return refused(Refusal.IN_FUTURE, f"The use began more than {ahead} minutes from now.", receipt)
    if receipt.started_at < now - LONGEST_AGO:
        return refused(Refusal.TOO_OLD, f"The use began more than {LONGEST_AGO.days} days ago.", receipt)
    if max(receipt.input_tokens, receipt.output_tokens) > receipt.requests * MAX_REQUEST_TOKENS:
        most = f"{MAX_REQUEST_TOKENS:,} tokens each way"
        return refused(Refusal.IMPLAUSIBLE, f"A request on a device has at most {most}.", receipt)
    return None
