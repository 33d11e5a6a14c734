"""Read samples of a mixture at random from the store or a local cache."""
