"""Benchmarks: the portal beside alternatives, on this machine."""
