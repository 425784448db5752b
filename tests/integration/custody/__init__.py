"""Tests of the custody of upstream keys."""
