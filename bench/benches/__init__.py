"""Benchmarks against peers: `./run bench NAME`."""
