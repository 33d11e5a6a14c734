import pytest

from mantis.config.recipe import parse_recipe
from mantis.runs.step_runner import Run
from mantis.store.s3 import MinioStore

MADE = "0123456789abcdef" * 4


@pytest.fixture
def run_named(monkeypatch):
    """A run in a bucket, by id and overrides; the store is named and never asked."""
    monkeypatch.delenv("MANTIS_IMAGE", raising=False)

    def make(run_id: str = "demo-1a2b3c4d", **overrides: str) -> Run:
        given = {"training.launcher": "trainjob", "cluster.image": "mantis/train:1"}
        given |= {name.replace("__", "."): value for name, value in overrides.items()}
        recipe = parse_recipe("name: demo", origin="test", overrides=given)
        return Run(id=run_id, store=MinioStore(bucket="mantis", prefix="here"), recipe=recipe)

    return make
