"""Flamingo, in the architecture of Idefics 1."""
