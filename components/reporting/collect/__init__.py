"""Everything that a report shows, collected from the store."""
