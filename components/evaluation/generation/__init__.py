"""Asks a model behind an OpenAI-compatible address, and computes the loss of reference answers."""
