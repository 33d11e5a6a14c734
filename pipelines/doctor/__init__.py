"""Checks of a machine and of a cluster, each with its remedy."""
