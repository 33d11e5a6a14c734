"""Generates a model's responses in batches, and caches each batch when it is done."""
