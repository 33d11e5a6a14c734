"""Accept encoded images, and turn them into pixel values."""
