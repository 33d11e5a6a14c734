"""From prepared subsets to the samples of an epoch."""
