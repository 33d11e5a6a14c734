"""Benchmark images that also occur in the training data."""
