import gc
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from components.evaluation.answer_file import GivenAnswer, read_answers
from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from components.evaluation.readers.benchmark_reader import Samples, read_benchmark
from components.evaluation.rescore import rescore_evaluation, rescore_file
from components.evaluation.scoring.score_response import Scoring
from components.evaluation.step import evaluate
from mantis.artifacts.manifest import Manifest
from mantis.errors import InputError
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore
from pipelines.cli.main import app
from tests.helpers.paths import root_of


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A store with an evaluation."""

    store: ObjectStore
    prefix: str


@pytest.fixture
def evaluated(eval_run: Run, stored_model: Manifest) -> Evaluated:
    manifest = evaluate(eval_run, "demo-multi", stored_model)
    return Evaluated(store=eval_run.store, prefix=manifest.key)


@pytest.fixture
def samples(eval_source: Path) -> Samples:
    return read_benchmark(eval_source / "demo-multi", load_benchmark("demo-multi"), spool=eval_source, pictures=False)


def test_stored_responses_score_as_they_did(evaluated: Evaluated, eval_run: Run) -> None:
    store, prefix = evaluated.store, evaluated.prefix
    made = rescore_evaluation(store, prefix, load_benchmark("demo-multi"), "official", seed=eval_run.recipe.seed)
    assert [row.stored() for row in made.rows] == json.loads(store.get(f"{prefix}/scores.json"))["scores"]
    assert {condition: len(lines) for condition, lines in made.responses.items()} == {
        "actual": 60, "blind": 59, "shuffled": 59}  # fmt: skip


def test_the_collector_of_cycles_runs_again_after_an_error(samples: Samples) -> None:
    """Rescoring pauses it."""
    again = [GivenAnswer(origin="line", id=samples.samples[0].id, benchmark="", response="A")] * 2
    with pytest.raises(InputError, match="was answered before"):
        rescore_file(again, load_benchmark("demo-multi"), samples, "official", seed=0)
    assert gc.isenabled()


def test_responses_of_the_first_schema_version_score_the_same(evaluated: Evaluated, eval_run: Run) -> None:
    store, prefix = evaluated.store, evaluated.prefix
    for entry in list(store.list(f"{prefix}/responses")):
        lines = [json.loads(line) for line in store.get(entry.key).splitlines()]
        for line in lines:
            line["schema_version"] = 1
            line["understood"] = line.pop("parsed")
        store.put(entry.key, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    made = rescore_evaluation(store, prefix, load_benchmark("demo-multi"), "official", seed=eval_run.recipe.seed)
    assert [row.stored() for row in made.rows] == json.loads(store.get(f"{prefix}/scores.json"))["scores"]


def test_the_other_profile_needs_no_model(evaluated: Evaluated, eval_run: Run, stored_model: Manifest) -> None:
    store, prefix = evaluated.store, evaluated.prefix
    strict = rescore_evaluation(store, prefix, load_benchmark("demo-multi"), "strict", seed=eval_run.recipe.seed)
    settings = eval_run.recipe.evaluation.model_copy(update={"scoring": "strict"})
    again = Run(id=eval_run.id, store=store, recipe=eval_run.recipe.model_copy(update={"evaluation": settings}))
    anew = evaluate(again, "demo-multi", stored_model)
    assert [row.stored() for row in strict.rows] == json.loads(store.get(f"{anew.key}/scores.json"))["scores"]


def test_a_file_from_elsewhere(tmp_path: Path, samples: Samples) -> None:
    lines = [{"id": f"q{number}", "response": "red" if number % 4 == 0 else "BLUE"} for number in range(40)]
    file = tmp_path / "responses.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    made = rescore_file(read_answers(file), load_benchmark("demo-multi"), samples, "official", seed=0)
    assert sum(row.samples for row in made.rows) == 40
    assert sum(row.missing for row in made.rows) == 20  # without a response
    assert sum(response.correct for response in made.responses["actual"]) == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "line 1 is list"),
        ('{"id": "q1"}', "line 1: response = None is no text"),
        ('{"id": "x", "response": "red"}', r"id = 'x' is no sample of demo-multi.*'q0'"),
        ('{"id": "q1", "response": ""}\n{"id": "q1", "response": ""}', "line 2: id = 'q1' was answered before"),
        ("", "holds no response"),
    ],
)
def test_wrong_files_are_explained(tmp_path: Path, samples: Samples, text: str, message: str) -> None:
    file = tmp_path / "responses.jsonl"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        rescore_file(read_answers(file), load_benchmark("demo-multi"), samples, "official", seed=0)


def test_other_addresses_are_refused(eval_run: Run) -> None:
    with pytest.raises(InputError, match="holds no responses"):
        rescore_evaluation(
            eval_run.store, "evaluations/a/demo-multi/b", load_benchmark("demo-multi"), "official", seed=0
        )
    with pytest.raises(InputError, match="cannot be read"):
        read_answers(root_of(eval_run.store) / "no")


def test_the_commands(evaluated: Evaluated, eval_source: Path, tmp_path: Path) -> None:
    store, prefix = evaluated.store, evaluated.prefix

    def mantis(*arguments: Any) -> Any:
        return CliRunner().invoke(app, [*arguments, "--store", store.url])

    out = tmp_path / "scores.json"
    done = mantis("rescore", store.uri(prefix), "--scoring", "strict", "--json", str(out))
    assert done.exit_code == 0, done.output
    assert [row["skill"] for row in json.loads(out.read_text())["scores"]] == ["compare", "coref", "temporal", "reason"]
    file = tmp_path / "responses.jsonl"
    file.write_text('{"id": "q1", "response": "blue"}')
    done = mantis("rescore", str(file), "--benchmark", "demo-multi", "--source", str(eval_source))
    assert "100.0" in done.output
    assert "too long" not in done.output
    file.write_text(json.dumps({"id": "q1", "response": "x" * 100_000}))
    done = mantis("rescore", str(file), "--benchmark", "demo-multi", "--source", str(eval_source))
    assert "too long: 1. Only" in " ".join(done.output.split())
    assert mantis("rescore", prefix, "--scoring", "kind").exit_code == 1
    listed = mantis("benchmark", "list").output
    assert "mvbench" in listed
    assert "generated" in listed
    assert "no verdict against another split" in " ".join(mantis("benchmark", "show", "vqav2").output.split())


def test_conditions_of_the_evaluation_stay_and_those_of_a_file_are_unknown(
    evaluated: Evaluated, samples: Samples, tmp_path: Path
) -> None:
    again = rescore_evaluation(evaluated.store, evaluated.prefix, load_benchmark("demo-multi"), "strict", seed=0)
    expected = {"scoring": "strict", "prompt": "direct", "decoding": "greedy 8", "layout": "sequence"}
    assert [row.conditions for row in again.rows] == [expected] * len(again.rows)
    file = tmp_path / "responses.jsonl"
    file.write_text("\n".join(json.dumps({"id": f"q{number}", "response": "red"}) for number in range(60)))
    made = rescore_file(read_answers(file), load_benchmark("demo-multi"), samples, "official", seed=0)
    assert [row.conditions for row in made.rows] == [{"scoring": "official"}] * len(made.rows)


def test_unparsed_is_that_of_the_chosen_scoring(samples: Samples, tmp_path: Path) -> None:
    file = tmp_path / "responses.jsonl"
    said = ["The answer is: red. Sure", "red", "no idea"]
    file.write_text("\n".join(json.dumps({"id": f"q{n}", "response": said[n % 3]}) for n in range(60)))
    benchmark = load_benchmark("demo-multi")
    official, strict = (
        rescore_file(read_answers(file), benchmark, samples, scoring, seed=0) for scoring in get_args(Scoring)
    )
    assert sum(row.unparsed or 0 for row in official.rows) >= 20  # a text that is none of the options is no answer
    for made in (official, strict):
        unparsed = sum(not each.parsed for each in made.responses["actual"])
        assert sum(row.unparsed or 0 for row in made.rows) == unparsed


def test_the_terminal_says_what_controls_choose_and_why_a_score_is_not_comparable(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    shown = CliRunner().invoke(app, ["rescore", evaluated.prefix, "--store", evaluated.store.url])
    assert shown.exit_code == 0, shown.output
    assert "A control must choose one of the valid answers" in " ".join(shown.output.split())
