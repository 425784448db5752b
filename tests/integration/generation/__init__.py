"""The room that serves calls, on a real ledger and the simulator."""
