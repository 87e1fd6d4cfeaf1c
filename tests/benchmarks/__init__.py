"""Benchmarks: each module has `--help`, measures all sides in one run and prints their ratio."""
