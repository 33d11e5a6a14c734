"""Reads raw data in its published forms: rows and image bytes, before any check."""
