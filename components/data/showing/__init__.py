"""Shows rows of a source or of a prepared set as training will read them."""
