"""Evaluates models on benchmarks: reads samples, generates responses, scores them, and adds confidence intervals.

Pipelines import this package; it imports `mantis` alone.
"""
