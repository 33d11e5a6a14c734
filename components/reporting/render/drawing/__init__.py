"""Plots as inline SVG: scales with round ticks, and safe markup."""
