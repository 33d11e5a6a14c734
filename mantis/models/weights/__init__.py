"""Published weights: catalog, mirrors in the store, loading."""
