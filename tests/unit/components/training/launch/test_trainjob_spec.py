import re
from pathlib import Path
from typing import Any

import pytest

from components.training.launch.trainjob_spec import (
    ASKED_ANNOTATION,
    LABEL_VALUE,
    applied_job,
    applied_name,
    job_name,
    label_of,
    stored_in,
    train_job,
    training_of,
)
from mantis.errors import ConfigError
from tests.fixtures.trainjobs import TrainjobRun

MADE = "0123456789abcdef" * 4


def test_a_training_follows_from_the_address() -> None:
    training = training_of("s3://mantis/here", MADE)
    assert re.fullmatch(r"[0-9a-f]{8}", training)
    assert training == training_of("s3://mantis/here", MADE)
    assert len({training, training_of("s3://mantis/there", MADE), training_of("s3://mantis/here", "f" + MADE[1:])}) == 3


@pytest.mark.parametrize("run", ["demo-1a2b3c4d", "9-of.many", "x" * 63, "a" * 31, "a" * 32])
def test_a_launchers_job_is_named_after_its_run_and_leaves_room_for_its_pods(run: str) -> None:
    name = job_name(run, "01234567")
    assert re.fullmatch(r"train-[a-z0-9]([-a-z0-9]*[a-z0-9])?-01234567", name)
    assert len(f"{name}-node-0-999-abcde") <= 63
    assert len(f"{applied_name(run)}-node-0-999-abcde") <= 63
    assert name != applied_name(run)


def test_both_ways_name_a_job_after_its_run() -> None:
    assert applied_name("demo-1a2b3c4d") == "train-demo-1a2b3c4d"
    assert job_name("demo-1a2b3c4d", "01234567") == "train-demo-1a2b3c4d-01234567"


def test_two_runs_that_train_the_same_have_the_same_label(trainjob_run: TrainjobRun) -> None:
    one, other = (train_job(trainjob_run(run_id=run), MADE)["metadata"] for run in ("demo-1a2b3c4d", "9-of.many"))
    assert one["labels"]["mantis-kfp/training"] == other["labels"]["mantis-kfp/training"]
    assert one["annotations"] == other["annotations"]
    assert one["name"].startswith("train-demo-1a2b3c4d-")
    assert other["labels"]["mantis-kfp/run"] == "9-of.many"
    assert "mantis-kfp/training" not in applied_job(trainjob_run())["metadata"]["labels"]


def test_a_job_describes_its_training(trainjob_run: TrainjobRun) -> None:
    changes = {"training.learning_rate": "5e-6", "training.epochs": "3", "training.global_batch_size": "16"}

    def said(samples: int, **more: str) -> dict[str, str]:
        run = trainjob_run(changes | {f"training.{name}": value for name, value in more.items()})
        annotations: dict[str, str] = train_job(run, MADE, samples=samples)["metadata"]["annotations"]
        return {name.removeprefix("mantis-kfp/"): value for name, value in annotations.items()}

    known = said(161)
    assert (known["recipe"], known["learning-rate"], known["batch-size"]) == ("demo", "5e-06", "16")
    assert known["steps"] == "31", "161 x 3 samples in batches of 16"
    assert said(161, max_steps="7")["steps"] == "7"
    assert said(161, max_steps="70")["steps"] == "31"
    assert said(0)["steps"] == "3 x the samples of the mixture, in batches of 16"
    assert said(0, max_steps="7")["steps"] == "at most 7"
    assert "mantis job" in known["to-change-a-field"]
    assert known["asked"] == said(0, max_steps="7")["asked"], "a description decides nothing"


def test_two_runs_are_never_taken_for_one() -> None:
    alike = ["exp-a", "exp-A", "exp_a", "exp.a", "exp-a-", "exp-a" + "-long" * 20, "exp-a" + "-long" * 21]
    for labels in (set(map(label_of, alike)), set(map(applied_name, alike))):
        assert len(labels) == len(alike)
        assert all(LABEL_VALUE.fullmatch(label) and len(label) <= 63 for label in labels)
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", applied_name(run)) for run in alike)


def test_a_job_says_which_store_it_trains_into(trainjob_run: TrainjobRun) -> None:
    assert stored_in(train_job(trainjob_run(), MADE)) == "s3://mantis/here"
    assert stored_in({"spec": {"trainer": {"command": ["torchrun", "--store"]}}}) == stored_in({"spec": {}}) == ""


def test_what_is_asked_for(trainjob_run: TrainjobRun) -> None:
    run = trainjob_run(
        {"training.nodes": "2", "training.gpus_per_node": "8", "cluster.queue": "a100", "cluster.runtime": "mine"}
    )
    job = train_job(run, MADE)
    assert job["apiVersion"] == "trainer.kubeflow.org/v1alpha1"
    assert job["metadata"]["namespace"] == "mantis"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "a100"
    assert job["spec"]["runtimeRef"]["name"] == "mine"
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"], trainer["image"]) == (2, 8, "mantis/train:1")
    assert trainer["command"][:5] == ["tini", "--", "python3", "-m", "components.training.launch.torchrun_in_pod"]
    assert trainer["command"][5:7] == ["-m", "components.training"]
    assert trainer["command"][7:] == ["--store", "s3://mantis/here", "--run-id", "demo-1a2b3c4d"]
    assert "resourcesPerNode" not in trainer  # the runtime's


def test_a_job_waits_in_the_recipes_queue_else_in_the_platforms(
    trainjob_run: TrainjobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def labels(overrides: dict[str, str] | None = None) -> dict[str, str]:
        found = train_job(trainjob_run(overrides), MADE)["metadata"]["labels"]
        return {name.removeprefix("kueue.x-k8s.io/"): value for name, value in found.items() if "kueue" in name}

    assert labels() == {}
    own = {"cluster.queue": "lab", "cluster.priority": "urgent"}
    assert labels(own) == {"queue-name": "lab", "priority-class": "urgent"}
    monkeypatch.setenv("MANTIS_QUEUE", "mantis")
    monkeypatch.setenv("MANTIS_PRIORITY", "mantis-training")
    assert labels() == {"queue-name": "mantis", "priority-class": "mantis-training"}
    assert labels(own) == {"queue-name": "lab", "priority-class": "urgent"}


def test_resources_replace_the_runtimes(trainjob_run: TrainjobRun) -> None:
    run = trainjob_run({"cluster.resources": "{nvidia.com/gpu: '4', memory: 400Gi}"})
    resources = train_job(run, MADE)["spec"]["trainer"]["resourcesPerNode"]
    assert resources["limits"] == resources["requests"] == {"nvidia.com/gpu": "4", "memory": "400Gi"}


def test_no_secret_is_in_a_job(trainjob_run: TrainjobRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-mine")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-secret-for-an-hour")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another-secret")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0a1b2c")
    assert "secret" not in str(train_job(trainjob_run(), MADE))


def test_the_ranks_log_to_the_run_that_kfp_made_where_it_made_it(
    trainjob_run: TrainjobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def passed_on() -> list[str]:
        return [entry["value"] for entry in train_job(trainjob_run(), MADE)["spec"]["trainer"]["env"][1:]]

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.kubeflow.svc:5000")
    assert passed_on() == []  # this machine's way to a server is not that of a pod
    monkeypatch.setenv("MLFLOW_RUN_ID", "0a1b2c")
    assert passed_on() == ["0a1b2c", "http://mlflow.kubeflow.svc:5000"]


def test_the_same_is_recognized_and_another_is_not(trainjob_run: TrainjobRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(overrides: dict[str, str] | None = None) -> str:
        return train_job(trainjob_run(overrides), MADE)["metadata"]["annotations"][ASKED_ANNOTATION]

    first = asked()
    monkeypatch.setenv("MLFLOW_RUN_ID", "of another pipeline run")
    assert asked() == first != asked({"training.nodes": "4"})
    assert asked({"cluster.image": "else:2"}) != first
    assert asked({"cluster.priority": "mantis-training"}) == first, "another priority ends no running job"
    assert asked({"cluster.queue": "a100"}) != first
    queued = asked({"cluster.queue": "a100"})
    monkeypatch.setenv("MANTIS_QUEUE", "a100")
    assert asked() == queued


def test_where_the_ranks_run_decides_no_result(trainjob_run: TrainjobRun) -> None:
    one, other = (
        trainjob_run(),
        trainjob_run({"training.nodes": "4", "cluster.queue": "a100", "cluster.image": "else:2"}),
    )
    assert one.recipe.identity() == other.recipe.identity()


def test_no_image(trainjob_run: TrainjobRun) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.image = ''.*--set cluster\.image"):
        train_job(trainjob_run({"cluster.image": "''"}), MADE)


def test_a_store_that_pods_cannot_reach(trainjob_run: TrainjobRun, tmp_path: Path) -> None:
    from dataclasses import replace

    from mantis.store.local import LocalStore

    with pytest.raises(ConfigError, match="pods of a TrainJob cannot reach it"):
        train_job(replace(trainjob_run(), store=LocalStore(tmp_path)), MADE)


def test_the_ranks_log_in_the_format_of_the_step(trainjob_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = train_job(trainjob_run(), MADE)["metadata"]["annotations"]
    monkeypatch.setenv("MANTIS_LOG", "json")
    monkeypatch.setenv("MANTIS_LOG_LEVEL", "WARNING")
    job = train_job(trainjob_run(), MADE)
    given = {entry["name"]: entry["value"] for entry in job["spec"]["trainer"]["env"]}
    assert (given["MANTIS_LOG"], given["MANTIS_LOG_LEVEL"]) == ("json", "WARNING")
    assert job["metadata"]["annotations"] == asked  # another format asks for the same job
