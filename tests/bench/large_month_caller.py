"""Takes the records of a month from a server on loopback and prints how many came: `large_month_caller PORT`."""

import sys

import grpc
from tollhouse.admin.v1 import chargeback_pb2 as pb
from tollhouse.admin.v1.chargeback_pb2_grpc import ChargebackServiceStub


def main() -> None:
    """Count the rows, without the one that names the columns."""
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}", options=options) as channel:
        request = pb.ExportStatementRecordsRequest(parent="tenants/acme", month="2026-05")
        pieces = ChargebackServiceStub(channel).ExportStatementRecords(request)
        rows = sum(piece.content.count(b"\n") for piece in pieces) - 1
    sys.stdout.write(f"{rows}\n")


if __name__ == "__main__":
    main()
