"""The DAGs, one module per pipeline, with recipes, compiled YAML and the command line.

This package may import everything. Nothing imports it.
"""
