"""Turns prepared subsets into the samples of an epoch."""
