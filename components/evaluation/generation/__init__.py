"""Batched answers of a model, cached as they come."""
