"""The skill ablation, whole, on this machine: two arms of the demo."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mantis.config.data_settings import SubsetSettings
from mantis.errors import ConfigError
from mantis.runs.arms import arms_of
from mantis.runs.records import State, read_record, read_records
from mantis.runs.step_runner import open_run
from mantis.store.base import ObjectStore
from mantis.store.local import LocalStore
from mantis.store.opening import open_store
from pipelines.execution.ablation_runs import preflight_arms, resolve_parent
from tests.fixtures.cli import Mantis

SMALL = {
    "data.skills": "[single,multi]",
    "data.generated_conversations": "160",
    "evaluation.samples_per_skill": "10",
    "training.epochs": "1",
}
GIVEN = [f"--set={field}={value}" for field, value in SMALL.items()]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """An ablation that has ended."""

    store: ObjectStore
    done: "subprocess.CompletedProcess[str]"
    folder: Path


@pytest.fixture(scope="module")
def ablation(mantis: Mantis, tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    folder = tmp_path_factory.mktemp("ablation")
    done = mantis("ablate", "demo", *GIVEN, "--name=abl", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return Ablation(store=open_store(f"file://{folder}/.mantis"), done=done, folder=folder)


@pytest.mark.slow
def test_each_arm_is_a_run_with_one_skill_more(ablation: Ablation) -> None:
    store, done = ablation.store, ablation.done
    assert arms_of(store, "abl") == ["abl-single", "abl-multi"]
    named = [[s.name for s in open_run(arm, store.url).recipe.data.subsets] for arm in arms_of(store, "abl")]
    assert named == [["demo-single"], ["demo-multi", "demo-single"]]
    trained = [read_record(store, arm, "train") for arm in arms_of(store, "abl")]
    assert all(record.state is State.DONE for record in trained)
    assert trained[0].key != trained[1].key
    assert "multi train" in done.stdout  # whose training it is


@pytest.mark.slow
def test_subsets_are_prepared_once(ablation: Ablation) -> None:
    store = ablation.store
    assert {record.step: record.state for record in read_records(store, "abl") if "prepare" in record.step} == {
        "prepare-demo-single": State.DONE,
        "prepare-demo-multi": State.DONE,
    }
    for arm in arms_of(store, "abl"):
        assert read_record(store, arm, "prepare-demo-single").state is State.REUSED


@pytest.mark.slow
def test_one_report_compares_the_arms_on_the_same_samples(ablation: Ablation) -> None:
    store, done = ablation.store, ablation.done
    summary = json.loads(store.get("reports/abl/summary.json"))
    assert summary["arms"] == ["abl-single", "abl-multi"]
    rows = [row for row in summary["scores"] if row["run"] == "abl-multi"]
    assert {row["benchmark"] for row in rows} == {"demo-multi", "demo-single"}
    assert all(row["difference_low"] <= row["difference"] <= row["difference_high"] for row in rows)
    assert b"abl-single" in store.get("reports/abl/report.html")
    assert "abl-single" in done.stdout
    assert "demo-multi" in done.stdout
    for arm in summary["arms"]:
        assert store.stat(f"reports/{arm}/report.html") is not None


@pytest.mark.slow
def test_the_arms_are_nested_in_mlflow(ablation: Ablation) -> None:
    folder = ablation.folder
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/.mantis/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = {run.data.tags["mantis.run"]: run for run in client.search_runs(experiments)}
    assert runs.keys() == {"abl", "abl-single", "abl-multi"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for arm in ("abl-single", "abl-multi"):
        assert runs[arm].data.tags["mlflow.parentRunId"] == runs["abl"].info.run_id
    parent = runs["abl"].data
    assert "mlflow.parentRunId" not in parent.tags
    assert "data.skills" not in parent.params, "the arms have other skills each"
    assert {"score.single.demo-multi", "score.multi.demo-multi"} <= parent.metrics.keys()


@pytest.mark.slow
def test_again_takes_everything_from_the_store(ablation: Ablation, mantis: Mantis) -> None:
    store, folder = ablation.store, ablation.folder
    done = mantis("ablate", "demo", *GIVEN, "--name=abl", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    for run in ("abl", *arms_of(store, "abl")):
        states = {record.step: record.state for record in read_records(store, run) if record.key}
        assert set(states.values()) == {State.REUSED}


@pytest.mark.parametrize("skills", ["[]", "[single]"])
def test_one_arm_is_no_ablation(skills: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.skills"):
        resolve_parent("demo", {"data.skills": skills}, "", "file:///store")


def test_a_skill_that_nobody_has_is_refused_before_anything_is_written(local_store: LocalStore) -> None:
    with pytest.raises(ConfigError, match="no-such"):
        preflight_arms("demo", SMALL | {"data.skills": "[single,no-such]"}, "", local_store.url)
    assert not list(local_store.list("runs"))


def test_an_ablation_of_the_published_mixture_names_its_subsets() -> None:
    recipe = resolve_parent("ablation-siglip", {}, "", "file:///store")[1]
    assert isinstance(recipe.data.subsets[0], SubsetSettings)
    assert resolve_parent("ablation-siglip", {}, "mine", "file:///store")[0] == "mine"
    assert resolve_parent("ablation-siglip", {}, "", "file:///store")[0] == f"{recipe.default_run_id()}-arms"


def test_a_name_leaves_room_for_those_of_the_arms() -> None:
    skills = {"data.skills": "[coref,temporal]"}
    assert resolve_parent("ablation-siglip", skills, "x" * 54, "file:///store")[0] == "x" * 54  # and x-temporal, of 63
    with pytest.raises(ConfigError, match=r"mantis_run \(--name\) = 'x+' is too long: the run x+-temporal") as caught:
        resolve_parent("ablation-siglip", skills, "x" * 56, "file:///store")
    assert "Shorten it by 2" in caught.value.remedy
