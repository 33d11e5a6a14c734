"""Merging adapters into their base weights."""
