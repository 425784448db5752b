"""One class per gRPC service: transport-free handlers that translate, call a room, and translate back."""
