"""The steps `report` and `compare`: one page for a run, and one for an ablation or a sweep."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mantis.artifacts.layout import ArtifactKind, benchmark_of, report_key
from mantis.artifacts.manifest import Manifest, Number
from mantis.runs.arms import arms_of, changes_of
from mantis.runs.lineage import find_artifact
from mantis.runs.records import read_record
from mantis.runs.step_runner import Run, StepSpec, failure_recorded, open_run, run_step
from mantis.runs.trials import read_trials
from mantis.schema_versions import Form, versioned
from mantis.store.base import ObjectStore

REVISION = 7  # increase it when the same evaluations would give another page
COMPARE_REVISION = 7
STEP = "report"


def report(run: Run, evaluations: Sequence[Manifest]) -> Manifest:
    """Write report.html, report.md, summary.json and model-card.md of `run`. The page names everything that is missing.

    answers.html beside it browses all judged answers, which it loads from `answers/` when they are asked for.

    Raises:
        StoreError: the store cannot be reached.
    """
    price = run.recipe.cluster.gpu_hour_price
    task = StepSpec(
        step=STEP,
        kind=ArtifactKind.REPORT,
        revision=REVISION,
        config={
            "run": run.id,
            "reference": run.recipe.evaluation.reference,
            "margin": run.recipe.evaluation.margin,
            **({"gpu_hour_price": price} if price is not None else {}),
        },
        inputs={benchmark_of(manifest.key): manifest for manifest in evaluations},
        parts={"run": run.id},
    )

    def work(prefix: str) -> dict[str, Number]:
        from components.reporting.collect.collector import collect
        from components.reporting.render.markdown import render_markdown
        from components.reporting.render.page import render_page
        from components.reporting.render.report_summary import summary
        from components.reporting.render.scored_model_card import card_with_scores

        collected = collect(run, evaluations)
        titles = {(score.benchmark, score.skill): score.label for score in collected.scores}
        judged, gaps = _put_answers(run, evaluations, titles, prefix)
        collected = replace(collected, judged=judged, notes=tuple(dict.fromkeys((*gaps, *collected.notes))))
        numbers = versioned(Form.REPORT_SUMMARY, summary(collected))
        run.store.put(f"{prefix}/report.html", render_page(collected).encode())
        run.store.put(f"{prefix}/report.md", render_markdown(collected).encode())
        card = card_with_scores(run.store, evaluations, collected)
        if card:
            run.store.put(f"{prefix}/model-card.md", card.encode())
        text = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False)
        run.store.put(f"{prefix}/summary.json", text.encode())
        return {
            "skills": len(collected.skills),
            "above_chance": sum(score.above_chance for score in collected.skills),
            "notes": len(collected.notes),
        }

    return run_step(run, task, work)


def _put_answers(
    run: Run, evaluations: Sequence[Manifest], titles: Mapping[tuple[str, str], str], prefix: str
) -> tuple[int, list[str]]:
    """Write answers.html and its chunks. Return the number of answers, and the gaps in words.

    `titles` are the words for a skill, by benchmark and skill.
    """
    from components.reporting.collect.artifact_reader import Reader
    from components.reporting.collect.judged_answers import answer_chunks
    from components.reporting.render.answers_page import PAGE, chunk_entry, render_answers

    reader, entries, judged = Reader(run.store), [], 0
    for chunk in answer_chunks(reader, evaluations):
        run.store.put(f"{prefix}/{chunk.file}", chunk.script())
        entries.append(chunk_entry(chunk))
        judged += len(chunk.answers)
    if judged:
        run.store.put(f"{prefix}/{PAGE}", render_answers(run.id, entries, titles).encode())
    return judged, reader.notes


def compare(run: Run) -> Manifest:
    """Write report.html, report.md and summary.json of an ablation or a sweep: a ranking of its arms, and a comparison.

    Raises:
        ConfigError: an arm has evaluated nothing.
        NotFoundError: an arm has no report.
    """
    arms = arms_of(run.store, run.id)
    with failure_recorded(run, STEP):
        reports = {arm: find_artifact(run.store, report_key(arm)) for arm in arms}
        changes = {arm: changes_of(run.store, arm) for arm in arms}
        trials = read_trials(run.store, run.id)
    task = StepSpec(
        step=STEP,
        kind=ArtifactKind.REPORT,
        revision=COMPARE_REVISION,
        config={
            "run": run.id,
            "arms": arms,
            "changes": changes,
            **({"trials": [trial.model_dump(mode="json") for trial in trials]} if trials else {}),
        },
        inputs=reports,
        parts={"run": run.id},
    )

    def work(prefix: str) -> dict[str, Number]:
        from components.reporting.arm_ranking import rank_arms
        from components.reporting.compare_runs import compare_runs
        from components.reporting.render.comparison_page import render_comparison, render_comparison_markdown
        from components.reporting.render.ranking_text import ranking_data, trial_data
        from components.reporting.render.report_summary import comparison_summary

        comparison = compare_runs([open_run(arm, run.store.url) for arm in arms])
        ranking = rank_arms(comparison, changes)
        run.store.put(f"{prefix}/report.html", render_comparison(comparison, ranking, trials).encode())
        run.store.put(f"{prefix}/report.md", render_comparison_markdown(comparison, ranking, trials).encode())
        found = {"ranking": ranking_data(ranking), "trials": trial_data(trials)}
        numbers = versioned(Form.REPORT_SUMMARY, comparison_summary(run.id, comparison) | found)
        text = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False)
        run.store.put(f"{prefix}/summary.json", text.encode())
        tallies = [comparison.tally(number) for number in range(1, len(arms))]
        return {"arms": len(arms), "skills_better": tallies[-1][0], "skills_worse": tallies[-1][2]}

    return run_step(run, task, work)


def headline_figures(run: Run, evaluations: Sequence[Manifest]) -> dict[str, float]:
    """The figures that compare runs: learning rate and loss of the training, and scores by benchmark and skill.

    Each name begins with `train/` or with its benchmark, because KFP sets tables of several runs side by side. KFP
    shows ten rows at a time, so numbers of samples stay in the report.
    """
    found: dict[str, float] = {}
    for manifest in sorted(evaluations, key=lambda each: benchmark_of(each.key)):
        for name, value in manifest.summary.items():
            if name.rpartition("/")[2] == "accuracy" and isinstance(value, int | float):
                found[f"{benchmark_of(manifest.key)}/{name}"] = value
    record = read_record(run.store, run.id, "train")
    if record is not None and record.key:
        training = run.recipe.training
        found |= {
            "train/learning_rate": training.learning_rate,
            "train/epochs": training.epochs,
            "train/batch_size": training.global_batch_size,
        }
        for name, value in record.summary.items():
            if (name in ("steps", "samples") or name.endswith("_loss")) and isinstance(value, int | float):
                found[f"train/{name}"] = value
    return found


def hand_over(store: ObjectStore, made: Manifest, page: str, text: str) -> None:
    """Copy the report to the files in which KFP's UI looks for HTML and Markdown."""
    for name, path in (("report.html", page), ("report.md", text)):
        Path(path).write_bytes(store.get(f"{made.key}/{name}"))
