"""Encoded images: accepted formats and pixel values."""
