"""The DAGs and the front door: one module per pipeline, recipes, the compiled YAML, the command line.

Imports everything; nothing imports it.
"""
