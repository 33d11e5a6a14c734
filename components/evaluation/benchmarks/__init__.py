"""Describes benchmarks as YAML, and reads their samples."""
