"""What devices did by themselves, below what the others cost."""

from decimal import Decimal

from tollhouse.v1.devices_pb2 import OnDeviceUsage

from tollhouse_admin.amounts import dollars_of, dollars_text
from tollhouse_admin.output import Format, note, write_table
from tollhouse_admin.rendering import Cell

_TITLES = ["receipts", "requests", "prompt_tokens", "output_tokens", "cost", "avoided_cost"]


def show_on_device(form: Format, use: OnDeviceUsage) -> None:
    """Write a section of its own in a table, and a line on stderr beside CSV; JSON has it already."""
    avoided = dollars_of(use.avoided_cost)
    if not use.receipts or form is Format.JSON:
        return
    if form is Format.TABLE:
        counts = [use.receipts, use.requests, use.input_tokens, use.output_tokens]
        row: list[Cell] = [*counts, Decimal(0), avoided]
        write_table(_TITLES, [row], caption="\non devices, in no sum above:")
    else:
        note(f"on devices, in no line: {use.requests} requests at no cost, ${dollars_text(avoided)} avoided")
    if use.unpriced_requests:
        note(f"{use.unpriced_requests} requests on devices had no price to compare with")
