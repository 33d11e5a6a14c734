"""Turns raw rows into checked rows and a ledger."""
