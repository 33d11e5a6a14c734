import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mantis.errors import ConfigError
from pipelines.execution.platform import Platform, platform_of
from pipelines.kubeflow.compile import NO_IMAGE, PIPELINES, compile_all, known_steps, stale
from pipelines.kubeflow.submit import described
from tests.helpers.paths import ROOT
from tests.helpers.yaml_files import documents

COMPILED = ROOT / "pipelines" / "compiled"
IMAGE = "registry:5000/mantis/pipeline@sha256:" + "0" * 64


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every pipeline, bound to an image."""
    return compile_all(tmp_path_factory.mktemp("bound"), Platform(image=IMAGE))


def test_the_kept_files_are_up_to_date() -> None:
    assert stale(COMPILED) == []


def test_a_changed_file_is_found(tmp_path: Path) -> None:
    folder = shutil.copytree(COMPILED, tmp_path / "compiled")
    path = folder / "unbound-sweep.yaml"
    path.write_text(path.read_text().replace("preflight", "preflite", 1))
    (folder / "unbound-ablation.yaml").unlink()
    assert sorted(stale(folder)) == ["unbound-ablation.yaml", "unbound-sweep.yaml"]


def test_every_task_is_uncached_and_installs_nothing() -> None:
    for name in PIPELINES:
        specification = documents((COMPILED / f"unbound-{name}.yaml").read_text())[0]
        dags = [specification["root"], *specification["components"].values()]
        tasks = [task for dag in dags for task in dag.get("dag", {}).get("tasks", {}).values()]
        assert tasks
        for task in tasks:
            if task["componentRef"]["name"].startswith("comp-") and "for-loop" not in task["componentRef"]["name"]:
                assert not task.get("cachingOptions", {}).get("enableCache", False), task["taskInfo"]
        for executor in specification["deploymentSpec"]["executors"].values():
            assert "pip install" not in " ".join(executor["container"]["command"])


def test_the_form_has_named_texts_with_defaults() -> None:
    """KFP shows a mapping as [object Object], and refuses a field without a default."""
    typed = ["batch_size", "benchmarks", "epochs", "learning_rate", "nodes"]
    common = ["mantis_run", "overrides", "recipe", "store_url"]
    expected = {
        "instruction-tuning": [*typed, *common],
        "data-preparation": common,
        "evaluation": ["benchmarks", "eval_model", *common],
        "ablation": [*typed, *common],
        "sweep": [*typed, *common, "over", "trials"],
    }
    for name in PIPELINES:
        specification = documents((COMPILED / f"unbound-{name}.yaml").read_text())[0]
        parameters = specification["root"]["inputDefinitions"]["parameters"]
        assert parameters.pop(NO_IMAGE) == {"parameterType": "STRING"}
        for parameter, definition in parameters.items():
            assert "defaultValue" in definition, parameter
            assert definition["parameterType"] == "STRING", parameter
        assert sorted(parameters) == sorted(expected[name])
        description = described(COMPILED / f"unbound-{name}.yaml")
        assert all(f"`{parameter}`" in description for parameter in parameters)
        assert "_" not in re.sub("`.*?`", "", description), "KFP takes a pair of them for emphasis"


def outside_of_loops(path: Path) -> list[str]:
    """The names of the tasks of a pipeline with a pod of their own, less those in loops."""
    specification = documents(path.read_text())[0]

    def tasks(dag: Any) -> Iterator[str]:
        for name, task in dag["tasks"].items():
            inner = specification["components"][task["componentRef"]["name"]]
            if "dag" not in inner:
                yield name
            elif not name.startswith("for-loop"):
                yield from tasks(inner["dag"])

    return sorted(tasks(specification["root"]["dag"]))


def test_a_pipeline_has_few_tasks_outside_of_loops() -> None:
    """Each task costs two pods, and about 20 s with Argo as KFP ships it."""
    found = {name: outside_of_loops(COMPILED / f"unbound-{name}.yaml") for name in PIPELINES}
    whole = ["convert", "deploy", "finish", "preflight", "prepare-mixture", "report", "train"]
    assert found["instruction-tuning"] == whole
    assert found["data-preparation"] == ["assemble", "finish", "preflight"]
    assert found["evaluation"] == ["existing-model", "finish", "preflight", "report"]
    assert found["ablation"] == ["arms", "compare", "finish-arms", "preflight-arms"]
    grid, search = ["arms", "compare"], ["compare-trials", "trials"]  # one of the two runs
    assert found["sweep"] == sorted([*grid, *search, "finish-sweep", "preflight-sweep"])


def test_a_file_without_an_image_says_so_and_is_not_started(bound: list[Path]) -> None:
    kept = sorted(COMPILED.iterdir())
    assert [path.name for path in kept] == sorted(f"unbound-{path.name}" for path in bound)
    for path in kept:
        specification, platform = documents(path.read_text())
        needed = specification["root"]["inputDefinitions"]["parameters"].items()
        assert [name for name, value in needed if "defaultValue" not in value] == [NO_IMAGE]
        info = specification["pipelineInfo"]
        assert info["name"].startswith("unbound-")
        assert info["displayName"].startswith("UNBOUND ")
        assert "mantis pipeline compile --image" in info["description"]
        for executor in specification["deploymentSpec"]["executors"].values():
            assert executor["container"]["image"] == "unbound.invalid/run:mantis-pipeline-compile--image"
        for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
            assert int(executor["activeDeadlineSeconds"]) <= 20
    for path in bound:
        assert "unbound" not in path.name + path.read_text().lower()


MAKERS = ("prepare", "assemble", "train", "convert")


def test_every_task_has_the_credentials_that_it_uses_and_no_others() -> None:
    """Everything that a pod holds is what a planted model or a curious submitter can take from it."""
    for name in PIPELINES:
        specification, platform = documents((COMPILED / f"unbound-{name}.yaml").read_text())
        executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        assert executors.keys() == specification["deploymentSpec"]["executors"].keys()
        for label, executor in executors.items():
            component = label.removeprefix("exec-")
            given = {secret["secretName"] for secret in executor["secretAsEnv"]}
            needed = {key["envVar"] for s in executor["secretAsEnv"] if not s.get("optional") for key in s["keyToEnv"]}
            assert needed == {"AWS_ENDPOINT_URL"}, "a pod with a role of its own has no keys"
            assert ("mantis-store" in given) == component.startswith(MAKERS), component
            assert ("mantis-store-results" in given) != ("mantis-store" in given), component
            assert ("mantis-mlflow" in given) == component.startswith(
                ("preflight", "finish", "train", "ask", "compare")
            ), component
            assert ("mantis-webhook" in given) == component.startswith("finish"), component
            if component.startswith(("train", "convert", "evaluate", "report", "compare", "deploy", "finish")):
                assert "mantis-hub" not in given, component
            assert len(given) <= 3, component


def test_every_task_runs_as_the_user_of_the_image() -> None:
    """KFP's backend adds the rest of Pod Security `restricted`; tests/kfp reads it off the pods."""
    for name in PIPELINES:
        platform = documents((COMPILED / f"unbound-{name}.yaml").read_text())[1]
        for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
            assert executor["securityContext"] == {"runAsUser": "1000", "runAsGroup": "1000", "runAsNonRoot": True}
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    assert "useradd --uid 1000" in dockerfile
    assert dockerfile.count("\nUSER 1000\n") == 2


def test_an_image_is_bound_everywhere_and_only_by_its_digest(bound: list[Path], tmp_path: Path) -> None:
    for path in bound:
        executors = documents(path.read_text())[0]["deploymentSpec"]["executors"]
        for executor in executors.values():
            assert executor["container"]["image"] == IMAGE
            # What the ranks of a TrainJob run in, and what lineage records.
            assert executor["container"]["env"] == [{"name": "MANTIS_IMAGE", "value": IMAGE}]
    with pytest.raises(ConfigError, match="has no digest"):
        compile_all(tmp_path, Platform(image="mantis/pipeline:1.0"))


def test_the_steps_ask_for_what_the_platform_says(tmp_path: Path) -> None:
    """By the file of the overlay a100, with a queue on top; only the steps that it names."""
    written = tmp_path / "steps.yaml"
    text = (ROOT / "manifests" / "overlays" / "a100" / "steps.yaml").read_text()
    written.write_text(text + "  queue: research\n  priority: mantis-evaluation\n  timeout_seconds: 86400\n")
    for path in compile_all(tmp_path / "compiled", platform_of("", written, known_steps())):
        pipeline, platform = documents(path.read_text())
        if path.stem == "unbound-data-preparation":
            continue
        asked = {name: one["container"].get("resources") for name, one in
                 pipeline["deploymentSpec"]["executors"].items()}  # fmt: skip
        given = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        evaluate = asked["exec-evaluate"]
        assert evaluate["accelerator"]["resourceType"] == "nvidia.com/gpu"
        assert evaluate["accelerator"]["resourceCount"] == "8"
        assert evaluate["resourceMemoryLimit"] == evaluate["resourceMemoryRequest"] == "256Gi"
        evaluate = given["exec-evaluate"]
        assert evaluate["nodeSelector"] == {"labels": {"nvidia.com/gpu.count": "8"}}
        assert evaluate["podMetadata"]["labels"] == {
            "kueue.x-k8s.io/queue-name": "research",
            "kueue.x-k8s.io/priority-class": "mantis-evaluation",
            "mantis-kfp/step": "true",
        }
        assert evaluate["tolerations"][0]["key"] == "nvidia.com/gpu"
        assert evaluate["emptyDirMounts"][0]["sizeLimit"] == "32Gi"
        assert [asked[name] for name in asked if name.startswith("exec-finish")] == [None]
        if path.stem != "unbound-evaluation":
            assert "accelerator" not in asked["exec-convert"]
            assert asked["exec-convert"]["resourceMemoryLimit"] == "64Gi"


@pytest.mark.parametrize("gpus", [0, 8])
def test_the_queue_of_train_is_that_of_its_trainjob(tmp_path: Path, gpus: int) -> None:
    """Without GPUs, the pod of the step follows a TrainJob: a pod that waited in its place would only keep it back."""
    written = tmp_path / "steps.yaml"
    written.write_text(f"train: {{queue: mantis, priority: mantis-training, gpus: {gpus}}}")
    found = 0
    for path in compile_all(tmp_path / "compiled", platform_of("", written, known_steps())):
        pipeline, platform = documents(path.read_text())
        given = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        for name, executor in pipeline["deploymentSpec"]["executors"].items():
            if not name.startswith("exec-train"):
                assert "env" not in executor["container"]
                continue
            found += 1
            assert executor["container"]["env"] == [
                {"name": "MANTIS_QUEUE", "value": "mantis"},
                {"name": "MANTIS_PRIORITY", "value": "mantis-training"},
            ]
            assert ("kueue.x-k8s.io/queue-name" in given[name]["podMetadata"]["labels"]) == bool(gpus)
    assert found >= 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("evaluate: {gpu: 8}", "evaluate.gpu = 8 is not a field"),
        ("evaluate: {memory: much}", "evaluate.memory = 'much'"),
        ("evaluate: {queue: Not_a_queue}", "evaluate.queue = 'Not_a_queue'"),
        ("launch: {gpus: 8}", "no pipeline has a step launch"),
        ("evaluate: [", "while parsing"),
        ("", "the whole = None"),
    ],
)
def test_a_wrong_platform_is_explained(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "steps.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        platform_of("", path, known_steps())
    assert said in refused.value.problem
    assert "gpus" in refused.value.remedy
    assert "evaluate" in refused.value.remedy


def test_the_platform_limits_the_arms_at_the_same_time(tmp_path: Path) -> None:
    compile_all(tmp_path, Platform(arms=2))
    for folder, arms in ((COMPILED, 0), (tmp_path, 2)):
        for name in ("ablation", "sweep"):
            limits = limits_of_loops(folder / f"unbound-{name}.yaml")
            searched = {"each-trial": arms} if name == "sweep" else {}
            assert limits == {"each-arm": arms, "each-subset": 0, "each-benchmark": 0} | searched


def test_the_platform_file_limits_each_loop_by_its_step(tmp_path: Path) -> None:
    path = tmp_path / "steps.yaml"
    path.write_text("{train: {parallelism: 1}, evaluate: {parallelism: 2}, prepare: {parallelism: 3}}")
    compile_all(tmp_path / "file", platform_of("", path, known_steps()))
    compile_all(tmp_path / "both", platform_of("", path, known_steps(), arms=4))
    of_data, of_benchmarks = {"each-subset": 3}, {"each-benchmark": 2}
    assert limits_of_loops(tmp_path / "file/unbound-data-preparation.yaml") == of_data
    for name in ("instruction-tuning", "evaluation"):
        assert limits_of_loops(tmp_path / f"file/unbound-{name}.yaml") == of_benchmarks
    for name in ("ablation", "sweep"):
        loops = ("each-arm", "each-trial") if name == "sweep" else ("each-arm",)
        for folder, arms in (("file", 1), ("both", 4)):
            limits = of_data | of_benchmarks | dict.fromkeys(loops, arms)
            assert limits_of_loops(tmp_path / folder / f"unbound-{name}.yaml") == limits


def limits_of_loops(path: Path) -> dict[str, int]:
    """The most iterations of each loop at the same time; 0: no limit."""
    specification = documents(path.read_text())[0]
    dags = [specification["root"], *specification["components"].values()]
    return {
        task["taskInfo"]["name"]: task.get("iteratorPolicy", {}).get("parallelismLimit", 0)
        for dag in dags
        for task in dag.get("dag", {}).get("tasks", {}).values()
        if "parameterIterator" in task
    }


def test_a_sweep_closes_its_run_whatever_happens() -> None:
    specification = documents((COMPILED / "unbound-sweep.yaml").read_text())[0]
    tasks = specification["root"]["dag"]["tasks"]
    assert tasks["finish-sweep"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert specification["root"]["inputDefinitions"]["parameters"]["over"]["parameterType"] == "STRING"


def test_a_trial_runs_only_if_it_is_new_and_is_evaluated_only_if_it_is_not_pruned() -> None:
    specification = documents((COMPILED / "unbound-sweep.yaml").read_text())[0]
    branches = {
        task["taskInfo"]["name"]: (
            task["triggerPolicy"]["condition"],
            specification["components"][name]["dag"]["tasks"],
        )
        for component in specification["components"].values()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if "condition" in task.get("triggerPolicy", {})
        for name in [task["componentRef"]["name"]]
    }
    assert {"new-values", "not-pruned", "search", "grid"} <= branches.keys()
    condition, tasks = branches["new-values"]
    assert condition.endswith("!= ''")
    assert {"prepare-mixture", "train-trial"} <= {name.removesuffix("-2") for name in tasks}
    condition, tasks = branches["not-pruned"]
    assert condition.endswith("== true")
    assert {"convert", "benchmarks", "report"} <= {name.removesuffix("-2") for name in tasks}


def test_a_model_is_deployed_only_if_the_run_says_so(tmp_path: Path) -> None:
    """The condition reads the unnamed output of a task, the only one that kfp.local resolves."""
    path = tmp_path / "steps.yaml"
    path.write_text("serve: {cpu: '8', gpus: 1}")
    compile_all(tmp_path, platform_of("", path, known_steps()))
    components = documents((tmp_path / "unbound-instruction-tuning.yaml").read_text())[0]["components"]
    tasks = {name: task for each in components.values() for name, task in each.get("dag", {}).get("tasks", {}).items()}
    (guarded,) = [task for task in tasks.values() if "condition" in task.get("triggerPolicy", {})]
    assert guarded["triggerPolicy"]["condition"] == (
        "inputs.parameter_values['pipelinechannel--convert-Output'] == true"
    )
    assert components[guarded["componentRef"]["name"]]["dag"]["tasks"].keys() == {"deploy"}
    (resources,) = [task["inputs"]["parameters"]["resources"] for name, task in tasks.items() if name == "deploy"]
    assert resources["runtimeValue"]["constant"] == {"cpu": "8", "gpus": 1.0}
