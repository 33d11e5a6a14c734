"""Runs and their steps: execution, records, lineage, garbage collection."""
