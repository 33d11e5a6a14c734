"""Collect from the store everything that a report shows."""
