"""docs/reference/cli.md, recipe.md, benchmarks.md and fidelity.md, written from the code.

`python -m pipelines.cli.reference_pages` writes them, and with `--check` compares them.
"""
