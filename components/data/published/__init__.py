"""The published training sets: catalog and download."""
