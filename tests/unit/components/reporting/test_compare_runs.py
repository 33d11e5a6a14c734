import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components.reporting.collect.report_schema import Curve
from components.reporting.compare_runs import Comparison, compare_runs
from components.reporting.render.comparison_page import (
    render_comparison,
    render_comparison_markdown,
    runtime_differences,
    verdicts,
)
from mantis.artifacts.manifest import Manifest, commit_manifest, describe_files
from mantis.config.recipe import Recipe, parse_recipe
from mantis.errors import ConfigError
from mantis.runs.step_runner import Run
from mantis.statistics import holm
from mantis.store.base import ObjectStore
from mantis.store.local import LocalStore
from pipelines.cli.comparison_table import show_comparison
from pipelines.cli.main import app
from tests.fixtures.reporting import MakeStored
from tests.helpers.terminal import numbers_in, on_terminal

RIGHT = {"first": (60, 50), "second": (85, 52), "third": (60, 50)}  # right answers of 100: compare, coref


@pytest.fixture
def runs(make_stored: MakeStored, local_store: LocalStore, demo_recipe: Recipe) -> list[Run]:
    """Three runs over the same 200 samples of demo-multi; the second is better at comparing."""
    made = []
    for name, right in RIGHT.items():
        settings = {"training": {"learning_rate": 1e-3}} if name == "second" else {}
        text = json.dumps({**demo_recipe.model_dump(mode="json"), "name": name, **settings})
        run = Run(id=name, store=local_store, recipe=parse_recipe(text, origin=name))
        stored = make_stored(run=run)
        evaluation = stored.artifacts["evaluate-demo-multi"]
        lines = [
            line(f"{skill}-{number:04d}", skill, number < correct)
            for skill, correct in zip(("compare", "coref"), right, strict=True)
            for number in range(100)
        ]
        put_lines(local_store, evaluation, lines)
        made.append(run)
    return made


def line(sample: str, skill: str, correct: bool, **more: Any) -> dict[str, Any]:
    said = "same" if correct else "different"
    return {
        "id": sample,
        "question": "Same or different?",
        "images": [{"path": f"{sample}.jpg", "sha256": sample}],
        "skill": skill,
        "unit": sample,
        "score": float(correct),
        "response": said,
        "correct": correct,
    } | more


def put_lines(store: ObjectStore, evaluation: Manifest, lines: list[dict[str, Any]]) -> None:
    prefix = evaluation.key
    store.put(f"{prefix}/responses/actual-00000.jsonl", "".join(json.dumps(each) + "\n" for each in lines).encode())
    commit_manifest(store, evaluation.model_copy(update={"files": describe_files(store, prefix)}))


def cells(comparison: Comparison, skill: str) -> tuple[Any, ...]:
    return next(row.cells for row in comparison.rows if row.skill == skill)


def test_the_same_samples_are_compared_pairwise(runs: list[Run]) -> None:
    comparison = compare_runs(runs)
    first, second, third = cells(comparison, "compare")
    assert first.paired is None
    assert (second.paired.samples, second.paired.test) == (100, "mid-p McNemar")
    assert second.paired.difference == pytest.approx(0.25)
    assert second.paired.significant
    assert (third.paired.difference, third.paired.p) == (0, 1)
    assert not cells(comparison, "coref")[1].paired.significant
    assert cells(comparison, "single")[1].paired is None  # nobody kept its responses
    assert comparison.tally(1) == (1, 1, 0)
    assert comparison.tally(2) == (0, 2, 0)
    assert ("training.learning_rate", ("0.0004", "0.001", "0.0004")) in comparison.settings


def test_the_page_and_its_twin_say_who_is_better_on_what(runs: list[Run]) -> None:
    comparison = compare_runs(runs)
    page, markdown = render_comparison(comparison), render_comparison_markdown(comparison)
    for text in (page, markdown):
        assert "Of 2 skills, second is better than first on 1 and worse on 0." in text
        assert "third does not differ significantly from first on any of 2 skills." in text
        assert "+25.0" in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "<script" not in page
    assert "<" not in markdown
    assert len(comparison.disagreements) == 0  # the galleries show the first samples, which all got right


def test_fields_that_decide_no_result_stand_apart(runs: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    first, second = runs[:2]
    training = first.recipe.training.model_copy(update={"checkpoint_every": 20, "seed": 5})
    other = replace(second, recipe=first.recipe.model_copy(update={"training": training}))
    comparison = compare_runs([first, other])
    every = str(first.recipe.training.checkpoint_every)
    assert comparison.settings == (("training.seed", (str(first.recipe.training.seed), "5")),)
    assert comparison.runtime_settings == (("training.checkpoint_every", (every, "20")),)
    many = replace(comparison, runtime_settings=(("training.checkpoint_every", (every, "20", every, "20")),))
    assert runtime_differences(many) == runtime_differences(comparison)
    said = f"The runs also differ in fields that decide no result: training.checkpoint_every: {every}, 20."
    assert said in render_comparison(comparison)
    assert said in render_comparison_markdown(comparison).replace("\\", "")
    show_comparison(comparison)
    assert said in " ".join(capsys.readouterr().out.split())


def test_a_single_skill_is_named_in_the_singular(runs: list[Run]) -> None:
    comparison = compare_runs(runs)
    for skill, said in (
        ("compare", "second is better than first on the only skill."),
        ("coref", "second does not differ significantly from first on the only skill."),
    ):
        alone = replace(comparison, rows=tuple(row for row in comparison.rows if row.skill == skill))
        assert verdicts(alone)[0] == said


def test_many_runs_are_counted_and_a_legend_names_their_few_differences(runs: list[Run]) -> None:
    comparison = compare_runs(runs)
    curve = Curve(name="loss", title="Loss", unit="nats", points=((1, 2.0), (2, 1.0)))
    arms = tuple(replace(arm, losses=(curve,)) for arm in comparison.arms)
    rate = tuple(setting for setting in comparison.settings if setting[0] == "training.learning_rate")
    page = render_comparison(replace(comparison, arms=arms, settings=rate))
    assert "second (training.learning_rate = 0.001)</li>" in page
    more = [replace(row, cells=(*row.cells, row.cells[2], row.cells[2], row.cells[2])) for row in comparison.rows]
    others = (replace(arms[2], run=name) for name in ("fourth", "fifth", "sixth"))
    page = render_comparison(replace(comparison, arms=(*arms, *others), rows=tuple(more), settings=()))
    assert '<h1 class="verdict">Of 5 runs, 1 is better than first on a skill and 0 are worse on one.</h1>' in page
    assert page.index("sixth does not differ") > page.index("<nav")


def test_answers_on_which_runs_disagree_are_shown(runs: list[Run]) -> None:
    store = runs[0].store
    evaluation = next(manifest for manifest in evaluations(runs[1]))
    wrong = [line(f"{skill}-{number:04d}", skill, False) for skill in ("compare", "coref") for number in range(100)]
    put_lines(store, evaluation, wrong)
    comparison = compare_runs(runs[:2])
    assert {each.answer.skill for each in comparison.disagreements} == {"compare", "coref"}
    shown = comparison.disagreements[0]
    assert [told.correct for told in shown.lines] == [True, False]
    page = render_comparison(comparison)
    assert page.count("<article") == len(comparison.disagreements)
    assert comparison.tally(1) == (0, 0, 2)


def evaluations(run: Run) -> Iterator[Any]:
    from mantis.artifacts.manifest import read_manifest
    from mantis.runs.records import read_records

    for record in read_records(run.store, run.id):
        if record.step == "evaluate-demo-multi":
            yield read_manifest(run.store, record.key)


def test_other_samples_are_left_out_and_said(runs: list[Run]) -> None:
    evaluation = next(evaluations(runs[1]))
    put_lines(runs[0].store, evaluation, [line(f"compare-{number:04d}", "compare", True) for number in range(50, 150)])
    comparison = compare_runs(runs[:2])
    assert cells(comparison, "compare")[1].paired.samples == 50
    assert cells(comparison, "coref")[1].paired is None
    assert any("share 50 samples" in note for note in comparison.notes)


def test_an_id_that_means_another_sample_is_not_compared(runs: list[Run]) -> None:
    other = [
        line(f"{skill}-{number:04d}", skill, True, question="Another?")
        for skill in ("compare", "coref")
        for number in range(100)
    ]
    put_lines(runs[0].store, next(evaluations(runs[1])), other)
    comparison = compare_runs(runs[:2])
    assert cells(comparison, "compare")[1].paired is None
    assert any("share 0 samples" in note for note in comparison.notes)
    assert not comparison.disagreements


def test_all_samples_of_a_unit_have_to_be_right(runs: list[Run]) -> None:
    for run, second_right in zip(runs[:2], (False, True), strict=True):
        lines = [
            line(f"compare-{number}-{turn}", "compare", turn == 0 or second_right, unit=f"compare-{number}")
            for number in range(30)
            for turn in range(2)
        ]
        put_lines(run.store, next(evaluations(run)), lines)
    paired = cells(compare_runs(runs[:2]), "compare")[1].paired
    assert (paired.samples, paired.difference) == (30, 1)


def test_what_cannot_be_compared_is_refused_or_said(
    runs: list[Run], local_store: LocalStore, demo_recipe: Recipe
) -> None:
    with pytest.raises(ConfigError, match="two or more"):
        compare_runs([runs[0], runs[0]])
    empty = Run(id="empty", store=local_store, recipe=demo_recipe)
    with pytest.raises(ConfigError, match="'empty' has evaluated nothing"):
        compare_runs([runs[0], empty])
    put_lines(local_store, next(evaluations(runs[1])), [{"id": "x", "correct": True}])
    comparison = compare_runs(runs[:2])
    assert any("earlier version" in note for note in comparison.notes)
    assert comparison.tally(1) == (0, 0, 0)
    assert "cannot be compared" in render_comparison(comparison)


def test_the_terminal_says_it_too_and_writes_the_page(runs: list[Run], local_store: LocalStore, tmp_path: Path) -> None:
    for run in runs:
        local_store.put(run.key("recipe.yaml"), run.recipe.to_yaml().encode())
    page = tmp_path / "new" / "page.html"
    given = ["compare", *(run.id for run in runs), "--store", local_store.url]
    done = CliRunner().invoke(app, [*given, "--html", str(page)])
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("Compare two images")]
    assert "+25.0" in rows[0]
    assert "Of 2 skills, second is better than first on 1 and worse on 0." in done.stdout
    assert "training.learning_rate" in done.stdout
    data = json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout)
    compared = next(row for row in data["scores"] if row["skill"] == "compare")
    assert compared["runs"][0]["difference"] is None
    assert compared["runs"][1]["difference"]["value"] == pytest.approx(0.25)
    assert "+25.0" in page.read_text()
    assert "+25.0" in page.with_suffix(".md").read_text()


def test_the_numbers_stay_whole_at_80_columns_and_in_a_pipe(
    runs: list[Run], local_store: LocalStore, tmp_path: Path
) -> None:
    for run in runs:
        local_store.put(run.key("recipe.yaml"), run.recipe.to_yaml().encode())
    given = ["compare", *(run.id for run in runs), "--store", local_store.url]
    piped = CliRunner().invoke(app, given, env={"COLUMNS": "80"}).stdout
    narrow = on_terminal(*given, columns=80, cwd=tmp_path)
    assert len(numbers_in(piped)) > 6
    assert numbers_in(piped) <= numbers_in(narrow)
    assert max(map(len, piped.splitlines())) > 80 >= max(map(len, narrow.splitlines()))


def test_p_is_corrected_for_all_tests_of_a_table_and_a_difference_says_what_it_needs(runs: list[Run]) -> None:
    comparison = compare_runs(runs)
    tests = [cell.paired for row in comparison.skills for cell in row.cells if cell is not None and cell.paired]
    assert len(tests) == 4  # two skills of two runs
    assert [test.corrected_p for test in tests] == pytest.approx(holm([test.p for test in tests]))
    better, same = cells(comparison, "compare")[1].paired, cells(comparison, "compare")[2].paired
    assert better.corrected_p == 4 * better.p
    assert better.needed == pytest.approx(7.849 * 0.25 * 0.75 * (100 / 99) / 0.01**2, rel=0.01)
    assert same.needed is None
    for text in (render_comparison(comparison), render_comparison_markdown(comparison)):
        assert f"{better.needed:,} samples for a point" in text
        assert "corrected together, by Holm's method" in " ".join(text.split()).replace("&#39;", "'")


def test_samples_that_share_an_image_are_tested_together(runs: list[Run]) -> None:
    for run, right in zip(runs[:2], (0, 1), strict=True):
        shared = [
            line(
                f"compare-{number}", "compare", number < 20 * right, images=[{"path": "", "sha256": str(number // 10)}]
            )
            for number in range(100)
        ]
        put_lines(run.store, next(evaluations(run)), shared)
    paired = cells(compare_runs(runs[:2]), "compare")[1].paired
    assert (paired.test, paired.samples) == ("paired t-test", 100)
    assert paired.difference == pytest.approx(0.2)
    assert paired.p > 0.1  # two of ten images, whatever the number of questions about them
