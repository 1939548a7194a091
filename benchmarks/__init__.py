"""Benchmarks: us beside the physical limit, in one run. `make bench` prints tables and keeps the result as JSON."""
