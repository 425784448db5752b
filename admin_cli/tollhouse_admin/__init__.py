"""The command line `tollhouse`: administration, reports and generation over gRPC, with nothing but generated stubs."""
