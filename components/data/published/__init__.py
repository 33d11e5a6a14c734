"""The published subsets: catalog, download, listing."""
