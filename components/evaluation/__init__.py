"""Benchmarks as data, generation, scoring, intervals.

Imported by pipelines; imports core and models.
"""
