"""The only room that speaks gRPC: who calls, may he, what his message says, which status he gets."""
