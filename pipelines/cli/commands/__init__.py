"""The commands of the command line: one module per noun, and one for the daily commands."""
