"""Tests of the command line against canned answers over real gRPC."""
