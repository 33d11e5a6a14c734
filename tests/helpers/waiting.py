"""The longest time that a test waits for something."""

HANG_SECONDS = 1500.0
"""A wait of this length counts as a hang. A busy machine may take many times as long as an idle one.

pytest ends a test later (`timeout` in pyproject.toml), so that the error of the wait itself is seen.
"""
