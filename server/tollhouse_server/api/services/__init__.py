"""One thin, transport-free class per gRPC service: message in, message out, facts raised."""
