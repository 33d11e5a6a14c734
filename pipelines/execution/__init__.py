"""Resolving, checking, running and finishing a pipeline."""
