"""Sweeps: runs of one recipe over values of its fields, and their comparison."""
