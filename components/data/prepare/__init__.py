"""From raw rows to checked rows and a ledger."""
