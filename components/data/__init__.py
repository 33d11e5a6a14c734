"""Turns raw conversations with images into prepared subsets, and the subsets into a mixture.

A ledger lists every row that was dropped or repaired. Pipelines import this package; it imports `mantis` alone.
"""
