"""Metrics of multi-image benchmarks of 2024 and 2025. Each has a module with `official` and `strict`."""
