"""Comparison of tokens, labels and pixels with transformers' own processors."""
