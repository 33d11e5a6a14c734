"""Resolving, checking, supervising and finishing a run of a pipeline."""
