"""Answers people and programs with a model: a conversation in the terminal, and an OpenAI-compatible server."""
