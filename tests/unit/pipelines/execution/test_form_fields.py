"""The form of a pipeline on KFP's page: what people write in it, and what the command line fills in."""

import logging

import pytest
import yaml

from mantis.errors import ConfigError
from mantis.runs.kfp_form import FORM_FIELDS
from pipelines.execution.form.form_fields import asked_overrides, filled_in, overrides_of
from pipelines.execution.resolve import resolve_run
from pipelines.execution.sweeps.search_space import over_of

EMPTY = dict.fromkeys(FORM_FIELDS, "")


def test_empty_fields_change_nothing() -> None:
    assert overrides_of("", EMPTY) == {}
    assert overrides_of(" \n", EMPTY | {"epochs": "  "}) == {}


def test_fields_and_overrides_are_changes_of_the_recipe() -> None:
    fields = EMPTY | {"learning_rate": " 5e-6 ", "batch_size": "32", "benchmarks": "demo-multi, demo-single"}
    text = "training.seed=2 data.skills=[multi, single]\n cluster.resources={cpu: '4 ', memory: 8Gi}"
    assert overrides_of(text, fields) == {
        "training.seed": "2",
        "data.skills": "[multi, single]",
        "cluster.resources": "{cpu: '4 ', memory: 8Gi}",
        "training.learning_rate": "5e-6",
        "training.global_batch_size": "32",
        "evaluation.benchmarks": "[demo-multi, demo-single]",
    }
    for names in ("a,b", "a b", "[a, b]", "a,\n b"):
        assert yaml.safe_load(overrides_of("", {"benchmarks": names})["evaluation.benchmarks"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "fields", "said"),
    [
        ("training.seed", {}, "overrides: 'training.seed' has no `=`"),
        ("training.seed = 2", {}, "has no `=`"),
        ("=2", {}, "has no `=`"),
        ("a.b=1 a.b=2", {}, "a.b is given twice: 1 and 2"),
        ("training.epochs=1", {"epochs": "2"}, "training.epochs is given twice: 1 and 2"),
    ],
)
def test_a_form_that_cannot_be_read_is_explained(
    text: str, fields: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError) as refused:
        overrides_of(text, fields)
    assert said in refused.value.problem
    with caplog.at_level(logging.WARNING):
        assert asked_overrides(text, fields) is None
    assert "No run was started" in caplog.text


HARD = {
    "training.learning_rate": "5e-6",
    "training.seed": "2",
    "evaluation.benchmarks": "[demo-multi, demo-single]",
    "data.skills": "[multi, single]",
    "data.source": '"/data/with a blank"',
    "model.prompt": "two words",
    "description": "it's [not closed",
    "evaluation.own_benchmarks": '{pets: {prompt: "don\'t say \\"no\\"", lines: \'a: b  c\'}}',
    "cluster.queue": "",
    "training.nodes": "  ",
}


@pytest.mark.parametrize("fields", [(), ("learning_rate", "benchmarks"), tuple(FORM_FIELDS)])
def test_what_is_filled_in_is_read_as_the_same_values(fields: tuple[str, ...]) -> None:
    form = filled_in(HARD, fields)
    assert form.keys() == {*fields, "overrides"}
    read = overrides_of(form.pop("overrides"), form)
    assert read.keys() == HARD.keys()
    for field, value in HARD.items():
        try:
            expected = yaml.safe_load(value)
        except yaml.YAMLError:
            expected = value
        assert yaml.safe_load(read[field]) == expected, field


def test_a_filled_in_form_gives_the_same_run() -> None:
    changes = {"training.learning_rate": "5e-6", "training.seed": "2", "data.generated_conversations": "320"}
    form = filled_in(changes, tuple(FORM_FIELDS))
    assert form["learning_rate"] == "5e-6"
    read = overrides_of(form.pop("overrides"), form)
    assert resolve_run("demo", read, "") == resolve_run("demo", changes, "")


def test_a_benchmark_list_that_is_no_list_stays_an_override() -> None:
    form = filled_in({"evaluation.benchmarks": "null"}, ("benchmarks",))
    assert form == {"benchmarks": "", "overrides": "evaluation.benchmarks=null"}


def test_the_values_of_a_sweep_are_words() -> None:
    assert over_of("training.learning_rate=2e-4,4e-4\ntraining.seed=1,2") == {
        "training.learning_rate": ["2e-4", "4e-4"],
        "training.seed": ["1", "2"],
    }
    with pytest.raises(ConfigError, match="is no list of values"):
        over_of("training.seed=1, 2")
