"""Benchmarks as data, and the samples of each."""
