"""Benchmarks beside the peers; run them with ``python -m benchmarks`` (docs/benchmarks.md)."""
