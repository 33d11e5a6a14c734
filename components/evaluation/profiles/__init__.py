"""Profiles: how a benchmark asks a model. A profile joins prompt, image layout, decoding and scoring."""
