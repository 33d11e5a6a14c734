"""Merge adapters into their base weights."""
