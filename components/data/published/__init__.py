"""The published subsets: catalog and download."""
