"""Whole runs, submitted from the command line: what they leave, what they reuse, and what ends them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import kfp_server_api
import pytest
import yaml

from mantis.artifacts.checkpoint import committed
from mantis.runs.records import State, runs
from mantis.runs.trials import TrialState, read_trials
from pipelines.execution.platform import Platform
from pipelines.kubeflow.compile import NO_IMAGE, compile_all
from tests.fixtures.own_benchmark import write_pets
from tests.helpers.demo_scores import assert_above_chance
from tests.helpers.kubectl import Kube
from tests.kfp.conftest import OVERLAY, Kfp, SubmittedRun

pytestmark = pytest.mark.timeout(2700)
EXPENSIVE = ("assemble", "train", "convert")


@pytest.fixture(scope="session")
def demo(kfp: Kfp) -> Any:
    """`mantis pipeline submit demo --follow`, to its end: what it said, and the ids of the run."""
    began = time.monotonic()
    done = kfp.submit("demo", "--follow")
    assert done.returncode == 0, done.stdout + done.stderr
    words = next(line for line in done.stdout.splitlines() if line.startswith("run ")).split()
    return {"said": done, "seconds": time.monotonic() - began, "run": words[1], "kfp": words[2].rsplit("/", 1)[-1]}


def test_the_demo_succeeds_and_clears_its_bars(kfp: Kfp, demo: Any) -> None:
    assert "SUCCEEDED" in demo["said"].stderr
    assert_above_chance(kfp.summary(demo["run"])["scores"])


def test_everything_is_in_mlflow(demo: Any, tracked: Callable[[str], Any]) -> None:
    from mlflow import MlflowClient

    found = tracked(demo["run"])
    assert found.info.status == "FINISHED"
    assert {"train/loss", "score.mean"} <= set(found.data.metrics)
    assert "report.html" in {item.path for item in MlflowClient().list_artifacts(found.info.run_id)}


def test_every_step_was_a_pod_of_the_image_and_training_a_job_of_two_pods(kfp: Kfp, demo: Any, kube: Kube) -> None:
    workflow = kfp.workflow(demo["kfp"])
    pods = [node for node in workflow["status"]["nodes"].values() if node["type"] == "Pod"]
    assert pods
    templates = json.dumps(workflow["spec"])
    assert kfp.image in templates
    assert kfp.records(demo["run"])["train"].state is State.DONE
    (pod,) = kfp.pods(demo["kfp"], "train")
    log = kfp.log(pod)
    assert "TrainJob mantis/train-" in log
    assert "2 x 1 ranks of" in log
    label = f"mantis-kfp/run={demo['run']}"
    assert "trainjob" not in kube.kubectl("-n", "mantis", "get", "trainjobs", "-l", label, "-o", "name")


def test_what_kfp_adds_to_the_steps_is_known(
    kfp: Kfp, demo: Any, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seconds of the run that no step of ours worked; docs/how-to/operate.md has the table."""
    nodes = kfp.workflow(demo["kfp"])["status"]["nodes"].values()
    pods = [node for node in nodes if node["type"] == "Pod"]
    ours = sum(record.seconds for record in kfp.records(demo["run"]).values() if record.key)
    whole = demo["seconds"]
    figures = {
        "seconds": round(whole),
        "seconds in our steps": round(ours),
        "pods": len(pods),
        "tasks": sum("container-impl" in node.get("templateName", "") for node in pods),
        "overhead": round(whole - ours),
    }
    for name, value in figures.items():
        record_property(name, value)
    with capsys.disabled():
        print(f"\noverhead of KFP: {figures}")
    assert figures["tasks"] <= 8
    assert figures["pods"] <= 22
    assert whole - ours < 600


def test_run_again_everything_expensive_comes_from_the_store(
    kfp: Kfp, small: SubmittedRun, little: dict[str, str]
) -> None:
    before = kfp.records(small.ours)
    began = time.monotonic()
    _, theirs = kfp.started("demo", overrides=little)
    assert kfp.ends(theirs) == "SUCCEEDED"
    assert time.monotonic() - began < 420
    after = kfp.records(small.ours)
    for step in EXPENSIVE:
        assert after[step].state is State.REUSED
        assert after[step].key == before[step].key


def test_a_clone_with_another_learning_rate_trains_again_on_the_same_data(kfp: Kfp, small: SubmittedRun) -> None:
    """What *Clone run* of the UI does: the same version and parameters, one of them changed."""
    theirs = kfp.again(small.theirs, "another learning rate", {"training.learning_rate": "2e-4"})
    assert kfp.ends(theirs) == "SUCCEEDED"
    (clone,) = [run for run in runs(kfp.opened) if kfp.recipe(run).training.learning_rate == 2e-4]
    before, after = kfp.records(small.ours), kfp.records(clone)
    assert after["assemble"].state is State.REUSED
    assert after["train"].state is State.DONE
    assert after["train"].key != before["train"].key


def test_the_data_alone(kfp: Kfp) -> None:
    ours, theirs = kfp.started("demo", "--pipeline=data-preparation", overrides={"data.generated_conversations": "170"})
    assert kfp.ends(theirs) == "SUCCEEDED"
    records = kfp.records(ours)
    assert records["assemble"].state is State.DONE
    assert "train" not in records


def test_a_model_of_the_store_is_evaluated(kfp: Kfp, small: SubmittedRun) -> None:
    model = kfp.records(small.ours)["convert"].key
    given = {"evaluation.samples_per_skill": "5", "evaluation.benchmarks": "[demo-single]"}
    ours, theirs = kfp.started("demo", "--pipeline=evaluation", f"--model={model}", overrides=given)
    assert kfp.ends(theirs) == "SUCCEEDED"
    assert {row["benchmark"] for row in kfp.summary(ours)["scores"]} == {"demo-single"}


def test_an_ablation_trains_its_arms_and_compares_them(
    kfp: Kfp, little: dict[str, str], tracked: Callable[[str], Any]
) -> None:
    own = {"training.seed": "11"}  # the last arm would reuse the training of the run `small`, which has the same data
    given = little | own | {"data.skills": "[single,multi]", "evaluation.benchmarks": "[demo-single]"}
    ours, theirs = kfp.started("demo", "--pipeline=ablation", overrides=given)
    assert kfp.ends(theirs) == "SUCCEEDED"
    summary = kfp.summary(ours)
    assert summary["arms"] == [f"{ours}-single", f"{ours}-multi"]
    for arm in summary["arms"]:
        assert kfp.records(arm)["train"].state is State.DONE
        assert tracked(arm).data.tags["mlflow.parentRunId"] == tracked(ours).info.run_id
        assert tracked(arm).info.status == "FINISHED"


def test_a_sweep_trains_its_arms_one_at_a_time_and_says_which_is_best(kfp: Kfp, little: dict[str, str]) -> None:
    over = "--over=training.learning_rate=2e-4,4e-4"
    own = {"training.seed": "13"}  # the first arm would reuse the training of the clone
    given = little | own | {"evaluation.benchmarks": "[demo-single]"}
    ours, theirs = kfp.started("demo", "--pipeline=sweep", over, "--parallel=1", overrides=given)
    assert kfp.ends(theirs) == "SUCCEEDED"
    summary = kfp.summary(ours)
    trained = [kfp.records(arm)["train"] for arm in summary["arms"]]
    assert [record.state for record in trained] == [State.DONE, State.DONE]
    assert trained[0].ended <= trained[1].started or trained[1].ended <= trained[0].started
    assert len(summary["ranking"]["pairs"]) == 1


def test_a_search_asks_for_values_in_each_trial_and_names_the_best(kfp: Kfp, little: dict[str, str]) -> None:
    over = "--over=training.learning_rate=1e-4..4e-4:log"
    given = little | {
        "evaluation.benchmarks": "[demo-single]",
        "data.holdout": "8",
        "training.evaluate_every": "2",
    }
    ours, theirs = kfp.started("demo", "--pipeline=sweep", over, "--trials=3", "--parallel=2", overrides=given)
    assert kfp.ends(theirs) == "SUCCEEDED"
    trials = read_trials(kfp.opened, ours)
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert TrialState.STARTED not in {trial.state for trial in trials}
    complete = [trial.run for trial in trials if trial.state is TrialState.COMPLETE]
    assert kfp.summary(ours)["arms"] == complete
    assert {kfp.records(arm)["train"].state for arm in complete} == {State.DONE}
    first, second, third = sorted((kfp.records(trial.run)["train"] for trial in trials), key=lambda each: each.started)
    assert third.started >= min(str(first.ended), str(second.ended)), "no more than two trials train at the same time"


def test_a_recurring_run_runs(kfp: Kfp, small: SubmittedRun, little: dict[str, str]) -> None:
    done = kfp.submit("demo", "--cron=0 * * * * *", overrides=little)
    assert done.returncode == 0, done.stdout + done.stderr
    recurring = next(line for line in done.stdout.splitlines() if line.startswith("run ")).rsplit("/", 1)[-1].strip()
    try:
        end = time.monotonic() + 180
        while not (started := kfp.runs_of(recurring)):
            assert time.monotonic() < end, "nothing was started within three minutes"
            time.sleep(3)
    finally:
        kfp.client.disable_recurring_run(recurring)
    assert kfp.ends(started[0]) == "SUCCEEDED"
    for late in kfp.runs_of(recurring)[1:]:
        kfp.client.terminate_run(late)
    kfp.client.delete_recurring_run(recurring)


def test_a_step_that_fails_says_why_where_people_look(
    kfp: Kfp, small: SubmittedRun, little: dict[str, str], mantis_status: Any, tracked: Callable[[str], Any]
) -> None:
    ours, theirs = kfp.started(
        "demo", overrides={"cluster.runtime": "no-such-runtime", **little | {"training.seed": "7"}}
    )
    assert kfp.ends(theirs) == "FAILED"
    log = "".join(map(kfp.log, kfp.pods(theirs, "train")))
    (said,) = [line for line in log.splitlines() if "The step failed: " in line]
    assert "no-such-runtime" in said
    assert "no-such-runtime" in tracked(ours).data.tags["failed.train"]
    assert tracked(ours).info.status == "FAILED"
    assert "no-such-runtime" in mantis_status(ours)


def test_a_recipe_that_will_not_do_is_refused_by_the_first_step(kfp: Kfp, small: SubmittedRun) -> None:
    theirs = kfp.again(small.theirs, "refused", {"training.learning_rat": "1"})
    assert kfp.ends(theirs) == "FAILED"
    assert "training.learning_rat" in "".join(map(kfp.log, kfp.pods(theirs, "preflight")))


def test_a_short_run_takes_little_more_than_its_steps(kfp: Kfp, small: SubmittedRun, capsys: Any) -> None:
    """Another learning rate: training, conversion, evaluation and report run again."""
    began = time.monotonic()
    theirs = kfp.again(small.theirs, "how long", {"training.learning_rate": "3.5e-4"})
    assert kfp.ends(theirs) == "SUCCEEDED"
    with capsys.disabled():
        print(f"\na short run took {time.monotonic() - began:.0f} s")


def test_a_file_without_an_image_starts_no_run(kfp: Kfp, tmp_path: Path) -> None:
    """KFP refuses it at once, and says why. The form shows the same field as missing."""
    (path,) = [path for path in compile_all(tmp_path, Platform()) if path.stem == "unbound-data-preparation"]
    with pytest.raises(kfp_server_api.ApiException) as refused:
        kfp.client.create_run_from_pipeline_package(str(path), arguments={}, enable_caching=False)
    assert refused.value.status == 400
    assert NO_IMAGE in refused.value.body


def test_the_description_is_there(kfp: Kfp, small: SubmittedRun) -> None:
    used = kfp.client.get_run(small.theirs).pipeline_version_reference
    assert "Change `learning_rate`" in kfp.client.get_pipeline(used.pipeline_id).description
    version = kfp.client.get_pipeline_version(used.pipeline_id, used.pipeline_version_id)
    assert kfp.image in version.description


def test_applying_the_overlay_again_changes_nothing(kfp: Kfp, kube: Kube) -> None:
    """A Job that ended an hour ago is tidied away, and created again."""
    said = kube.kubectl("apply", "-k", OVERLAY).splitlines()
    assert len(said) > 20
    assert [line for line in said if not line.endswith(" unchanged") and not line.startswith("job.batch/")] == []


def test_a_step_asks_for_what_the_platform_says(kfp: Kfp, tmp_path: Path) -> None:
    """A queue and a node for the one; for the other a GPU, which this cluster does not have: it waits, and says so."""
    asked = {
        "prepare": {
            "cpu": "100m",
            "memory": "2Gi",
            "queue": "research",
            "node_selector": {"kubernetes.io/os": "linux"},
        },
        "assemble": {"gpus": 1},
    }
    (tmp_path / "steps.yaml").write_text(yaml.safe_dump(asked))
    options = ("--pipeline", "data-preparation", "--platform", str(tmp_path / "steps.yaml"))
    _, theirs = kfp.started(
        "demo", *options, "--name", f"asked-{uuid4().hex[:8]}", overrides={"data.generated_conversations": "160"}
    )

    def waiting() -> Any:
        return [pod for name in kfp.pods(theirs, "assemble") if (pod := kfp.pod(name))["status"]["phase"] == "Pending"]

    (pod,) = kfp.kube.until("a pod that waits for a GPU", waiting, 600)
    assert "Insufficient nvidia.com/gpu" in pod["status"]["conditions"][0]["message"]
    assert "nvidia.com/gpu" in {toleration["key"] for toleration in pod["spec"]["tolerations"]}
    pod = kfp.pod(kfp.pods(theirs, "prepare")[0])
    assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert pod["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}
    (main,) = [container for container in pod["spec"]["containers"] if container["name"] == "main"]
    assert main["resources"] == {"requests": {"cpu": "100m", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}
    assert main["securityContext"]["runAsNonRoot"] is True
    kfp.client.terminate_run(theirs)
    assert kfp.ends(theirs, 300) != "SUCCEEDED"


def test_a_step_whose_pod_is_lost_does_not_lose_the_run(
    kfp: Kfp, small: SubmittedRun, little: dict[str, str], kube: Kube
) -> None:
    """As when a node goes: the pod is gone without a word, and Argo starts another."""
    given = little | {"data.generated_conversations": "4000", "training.max_steps": "10"}
    ours, theirs = kfp.started("demo", overrides=given)
    step = "prepare-demo-multi"

    def working() -> bool:
        records = kfp.records(ours)
        return step in records and records[step].state is State.STARTED

    kube.until("prepare works", working, 300)
    (pod,) = kfp.pods(theirs, "prepare-mixture")
    kube.kubectl("-n", kfp.namespace, "delete", "pod", pod, "--grace-period=0", "--force")
    assert kfp.ends(theirs) == "SUCCEEDED"
    assert kfp.records(ours)[step].attempts > 1


def test_the_next_attempt_of_an_evicted_launching_step_follows_the_same_job(
    kfp: Kfp, small: SubmittedRun, little: dict[str, str], kube: Kube, tracked: Callable[[str], Any]
) -> None:
    """As when the node of the step is drained. The ranks go on meanwhile."""
    from mlflow import MlflowClient

    logged = [1, *range(10, 301, 10)]
    given = little | {"training.epochs": "30", "training.checkpoint_every": "20", "training.seed": "12"}
    ours, theirs = kfp.started("demo", overrides=given)

    def saved() -> bool:
        record = kfp.records(ours).get("train")
        return record is not None and bool(committed(kfp.opened, f"checkpoints/{record.fingerprint}"))

    kube.until("a checkpoint", saved, 900)
    jobs = (
        "-n",
        "mantis",
        "get",
        "trainjobs",
        "-l",
        f"mantis-kfp/run={ours}",
        "-o",
        "jsonpath={.items[*].metadata.uid}",
    )
    (pod,), job = kfp.pods(theirs, "train"), kube.kubectl(*jobs)
    assert job
    kube.core.create_namespaced_pod_eviction(pod, kfp.namespace, {"metadata": {"name": pod}})
    evicted = time.time() * 1000
    kube.until("the next attempt", lambda: set(kfp.pods(theirs, "train")) > {pod}, 300)
    assert kube.kubectl(*jobs) == job
    assert kfp.ends(theirs) == "SUCCEEDED"
    record = kfp.records(ours)["train"]
    assert (record.state, record.attempts) == (State.DONE, 2)
    curve = MlflowClient().get_metric_history(tracked(ours).info.run_id, "train/loss")
    before = [point.step for point in curve if point.timestamp < evicted]
    assert before[:3] == logged[:3]
    assert [point.step for point in curve] == logged


@pytest.fixture
def mantis_status(kfp: Kfp) -> Any:
    def call(run: str) -> str:
        command = [sys.executable, "-m", "pipelines.cli", "status", run, "--store", kfp.store]
        return subprocess.run(command, env=os.environ | {"COLUMNS": "300"}, capture_output=True, text=True).stdout

    return call


def test_a_benchmark_of_a_file_runs_in_pods_that_do_not_have_it(kfp: Kfp, small: SubmittedRun, tmp_path: Path) -> None:
    file = write_pets(tmp_path / "mine")
    model = kfp.records(small.ours)["convert"].key
    given = {"evaluation.benchmarks": f"[{file}]"}
    ours, theirs = kfp.started("demo", "--pipeline=evaluation", f"--model={model}", overrides=given)
    assert kfp.ends(theirs) == "SUCCEEDED"
    assert {(row["benchmark"], row["samples"]) for row in kfp.summary(ours)["scores"]} == {("pets", 4)}
