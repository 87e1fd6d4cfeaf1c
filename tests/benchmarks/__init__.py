"""Benchmarks: each is a module with `--help`, measures all sides in one run and prints their ratio."""
