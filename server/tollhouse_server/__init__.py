"""The Tollhouse server: every room of it; `wiring` is the only module that knows them all."""
