"""`python -m pipelines.cli` is the same as `mantis`."""

from pipelines.cli.main import app

app(prog_name="mantis")
