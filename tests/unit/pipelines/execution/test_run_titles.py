"""What MLflow's table of runs shows of a run at a glance."""

import pytest

from mantis.artifacts.scores import Score
from mantis.runs.arms import changes_of, write_arms
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore
from mantis.store.local import LocalStore
from mantis.tracking.run_description import asked_dataset
from pipelines.execution import run_titles
from pipelines.execution.resolve import resolve_run
from pipelines.execution.run_titles import (
    changed_fields,
    changed_of,
    note_of,
    open_in_mlflow,
    title_of,
    what_to_filter_by,
)


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return LocalStore(tmp_path_factory.mktemp("store"))


def made(store: LocalStore, overrides: dict[str, object], name: str = "") -> Run:
    run_id, recipe = resolve_run("demo", overrides, name)
    return Run(id=run_id, store=store, recipe=recipe)


LONG = "x" * 40


def titled(run: Run) -> str:
    return title_of(run, changed_fields(run.recipe), changes_of(run.store, run.id))


@pytest.mark.parametrize(
    ("overrides", "title"),
    [
        ({"training.learning_rate": "1e-3"}, "demo lr=0.001"),
        ({"training.learning_rate": "1e-3", "training.seed": 2}, "demo lr=0.001 seed=2"),
        ({"seed": 3, "training.seed": 2}, "demo seed=3 training.seed=2"),
        (
            {"training.learning_rate": 1, "training.epochs": 7, "training.weight_decay": 0.2, "training.seed": 2},
            "demo epochs=7 lr=1.0 wd=0.2 and 1 more",
        ),
    ],
)
def test_the_name_says_what_was_changed(store: LocalStore, overrides: dict[str, object], title: str) -> None:
    assert titled(made(store, overrides)) == title


def test_an_unchanged_run_keeps_its_id_and_a_named_one_its_name(store: LocalStore) -> None:
    plain = made(store, {})
    assert (titled(plain), changed_fields(plain.recipe)) == (plain.id, {})
    assert titled(made(store, {"training.seed": 2}, "mine")) == "mine seed=2"
    assert titled(made(store, {"cluster.namespace": LONG})) == f"demo namespace={LONG[:24]}…"


def test_an_arm_of_a_sweep_is_named_by_what_the_sweep_varies(store: LocalStore) -> None:
    """All arms share the other changes, which would hide the difference. One value is that of the shipped recipe."""
    shared: dict[str, object] = {
        "data.generated_conversations": 70,
        "training.global_batch_size": 4,
        "training.log_every": 2,
    }
    own = {"training.learning_rate": "4.0e-4", "training.seed": "7"}
    arm = made(store, {**shared, **own}, "swept-1a2b3c")
    write_arms(store, "swept", [arm.id], {arm.id: own})
    assert titled(arm) == "demo lr=0.0004 seed=7"
    assert list(changed_of(arm)) == ["training.seed", *shared]
    assert titled(made(store, shared, "swept")).startswith("swept generated_conversations=70 ")


def test_skills_and_mixtures_are_listed_as_they_were_set(store: LocalStore) -> None:
    """Their subsets follow from them. Subsets that a person sets are listed."""
    skills = made(store, {"data.skills": ["single"]})
    assert skills.recipe.data.subsets
    assert changed_fields(skills.recipe) == {"data.skills": "['single']"}
    assert titled(skills) == "demo skills=['single']"
    both = made(store, {"data.skills": ["single"], "data.subsets": [{"name": "demo-single", "repeat": 2}]})
    assert list(changed_fields(both.recipe)) == ["data.skills", "data.subsets"]


def test_a_run_of_its_own_recipe_lists_no_changes(store: LocalStore) -> None:
    run_id, recipe = resolve_run("name: own\ntraining: {seed: 5}\n", {}, "")
    assert titled(Run(id=run_id, store=store, recipe=recipe)) == run_id


def test_the_run_is_in_mlflow_before_its_first_step(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    run = made(store, {"training.seed": 2})
    reads: list[str] = []

    def counted(there: ObjectStore, arm: str) -> dict[str, str]:
        reads.append(arm)
        return changes_of(there, arm)

    monkeypatch.setattr(run_titles, "changes_of", counted)
    open_in_mlflow(run)
    assert reads == [run.id], "the changes of an arm are read once"
    client = MlflowClient(tracking_uri=f"sqlite:///{store.root}/mlflow.db")
    (shown,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert (shown.info.run_name, shown.info.status, shown.data.params["training.seed"]) == (
        "demo seed=2",
        "RUNNING",
        "2",
    )
    tags = shown.data.tags
    assert (tags["changed"], tags["mantis.run"]) == ("training.seed = 2", run.id)
    assert tags["mlflow.note.content"] == f"Recipe `demo`, changed: training.seed = 2. Run `{run.id}`."
    assert what_to_filter_by(run.recipe).items() <= tags.items()
    (asked,) = shown.inputs.dataset_inputs
    assert (asked.dataset.name, asked.tags[0].value) == ("generated", "recipe")
    other = asked_dataset(made(store, {"data.generated_conversations": 70}).recipe)
    assert other.digest != asked.dataset.digest == asked_dataset(made(store, {"training.seed": 3}).recipe).digest


def test_the_note_of_an_ended_run(store: LocalStore) -> None:
    run = made(store, {})
    figures = {"accuracy": 0.9, "low": 0.83, "high": 0.95, "chance": 0.5}
    row = Score(benchmark="demo-multi", skill="compare", samples=100, unparsed=0, **figures)
    note = note_of(run, [row], "#/experiments/1/runs/2/artifacts/report.html", {"convert": "The proof failed.\nmore"})
    assert note.startswith(f"Recipe `demo`, unchanged. Run `{run.id}`.")
    assert "**convert failed.** The proof failed." in note
    assert "| demo-multi | compare | 90.0 ± " in note
    assert "above chance" in note
    assert note.endswith("[Report](#/experiments/1/runs/2/artifacts/report.html)")
