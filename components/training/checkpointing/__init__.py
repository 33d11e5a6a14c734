"""Checkpoints: saving, resuming, resharding, export."""
