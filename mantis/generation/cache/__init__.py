"""Keeps the responses of a model in a store, so that no question is answered twice."""
