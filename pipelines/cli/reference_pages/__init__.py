"""docs/reference/cli.md, recipe.md and benchmarks.md, written from the code.

`python -m pipelines.cli.reference_pages` writes them, and with `--check` compares them.
"""
