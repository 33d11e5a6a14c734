"""Finds benchmark images that also occur in the training data."""
