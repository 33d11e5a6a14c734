from pathlib import Path

import pytest
import yaml

from components.core.errors import ConfigError
from pipelines.compiling import PIPELINES, compile_all, stale

COMPILED = Path(__file__).parents[2] / "pipelines" / "compiled"


def test_the_kept_files_are_up_to_date():
    assert stale(COMPILED) == []


def test_a_changed_file_is_found(tmp_path: Path):
    path = compile_all(tmp_path)[0]
    path.write_text(path.read_text().replace("preflight", "preflite", 1))
    assert stale(tmp_path) == [path.name]


def test_every_task_is_uncached_and_installs_nothing():
    for name in PIPELINES:
        documents = list(yaml.safe_load_all((COMPILED / f"{name}.yaml").read_text()))
        specification = documents[0]
        dags = [specification["root"], *specification["components"].values()]
        tasks = [task for dag in dags for task in dag.get("dag", {}).get("tasks", {}).values()]
        assert tasks
        for task in tasks:
            if task["componentRef"]["name"].startswith("comp-") and "for-loop" not in task["componentRef"]["name"]:
                assert not task.get("cachingOptions", {}).get("enableCache", False), task["taskInfo"]
        for executor in specification["deploymentSpec"]["executors"].values():
            assert "pip install" not in " ".join(executor["container"]["command"])


def test_parameters_have_defaults_that_are_not_null_and_names_that_sort_together():
    for name in PIPELINES:
        specification = next(yaml.safe_load_all((COMPILED / f"{name}.yaml").read_text()))
        parameters = specification["root"]["inputDefinitions"]["parameters"]
        for parameter, definition in parameters.items():
            assert "defaultValue" in definition, parameter
            assert parameter.partition("_")[0] in ("run", "store", "train", "eval")


def test_every_task_has_the_keys_of_the_store_from_a_secret():
    for name in PIPELINES:
        specification, platform = yaml.safe_load_all((COMPILED / f"{name}.yaml").read_text())
        executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        assert executors.keys() == specification["deploymentSpec"]["executors"].keys()
        for executor in executors.values():
            secrets = {secret["secretName"]: secret.get("optional", False) for secret in executor["secretAsEnv"]}
            assert secrets.keys() == {"mantis-store", "mantis-mlflow", "mantis-hub"}
            needed = {key["envVar"] for s in executor["secretAsEnv"] if not s.get("optional") for key in s["keyToEnv"]}
            assert needed == {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_an_image_is_bound_everywhere_and_only_by_its_digest(tmp_path: Path):
    image = "registry:5000/mantis/pipeline@sha256:" + "0" * 64
    for path in compile_all(tmp_path, image):
        executors = next(yaml.safe_load_all(path.read_text()))["deploymentSpec"]["executors"]
        assert {executor["container"]["image"] for executor in executors.values()} == {image}
    with pytest.raises(ConfigError, match="has no digest"):
        compile_all(tmp_path, "mantis/pipeline:1.0")
