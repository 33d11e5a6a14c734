"""Resolve, check, supervise and finish a run of a pipeline."""
