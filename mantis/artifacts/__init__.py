"""The stored forms that components share, and the address of each."""
