"""Describe training data for people: samples with images and loss mask, micro-steps, distributions."""
