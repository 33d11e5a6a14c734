"""Samples of a mixture, read at random from the store or a local cache."""
