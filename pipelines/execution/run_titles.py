"""How MLflow shows a run: its name lists the changed fields, and its tags and note describe model and data."""

import logging
import os
from collections.abc import Mapping, Sequence

from components.data.mixture.epochs import written_out
from components.reporting.collect.verdict import verdict
from mantis.artifacts.scores import Score
from mantis.config.recipe import Recipe, parse_recipe
from mantis.errors import ConfigError, TrackingError
from mantis.progress import PROGRESS_DIR
from mantis.runs.arms import changes_in_words, changes_of
from mantis.runs.step_runner import Run
from mantis.tracking.mlflow_runs import TrackedRun, log_datasets, open_tracked_run, tracking_error
from mantis.tracking.run_description import asked_dataset, flat_recipe
from pipelines.execution.resolve import recipe_text, resolve_run, shipped_recipes

logger = logging.getLogger(__name__)

NOTE_TAG = "mlflow.note.content"  # defined by MLflow, whose page shows it as the description, in Markdown
CHANGES = 3  # that a name lists
VALUE_CHARACTERS = 24  # of one value in a name
SHORT = {"learning_rate": "lr", "weight_decay": "wd"}  # MLflow's table shows the first twenty characters of a name
SUBSETS = "data.subsets"
UNNAMED = ("name", "description")  # fields that change no result and stand elsewhere


def changed_fields(recipe: Recipe) -> dict[str, str]:
    """Return the fields in which a recipe differs from the shipped recipe of its name, with the recipe's values.

    Subsets that follow from the fields `data.mixture` and `data.skills` are no change of their own.
    """
    if recipe.name not in shipped_recipes():
        return {}
    shipped = flat_recipe(resolve_run(recipe.name, {}, "")[1])
    changed = {
        field: value
        for field, value in flat_recipe(recipe).items()
        if shipped.get(field) != value and field not in UNNAMED
    }
    if SUBSETS in changed and _subsets_follow(recipe):
        del changed[SUBSETS]
    return changed


def _subsets_follow(recipe: Recipe) -> bool:
    """Whether the shipped recipe has the same subsets with the mixture and the skills of this one."""
    text, origin = recipe_text(recipe.name)
    asked = parse_recipe(text, origin=origin)
    data = {"source": recipe.data.source, "mixture": recipe.data.mixture, "skills": recipe.data.skills}
    try:
        made = written_out(asked.model_copy(update={"data": asked.data.model_copy(update=data)}))
    except ConfigError:  # a mixture that no longer exists, in a stored recipe
        return False
    return made.data.subsets == recipe.data.subsets


def changed_of(run: Run, own: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the changed fields of a run's recipe. Those that an arm does not share with all arms come first.

    Args:
        run: the run.
        own: the changes of the arm; None reads them from the store.
    """
    changed = changed_fields(run.recipe)
    first = changes_of(run.store, run.id) if own is None else own
    return {field: changed[field] for field in first if field in changed} | changed


def title_of(run: Run, changed: Mapping[str, str], own: Mapping[str, str]) -> str:
    """Name a run by its recipe and its changed fields: `demo lr=0.001 seed=2`. Unchanged, it keeps its id.

    The arm of a sweep is named by the fields of the sweep alone, also where the shipped recipe has the same value. A
    field is named by its last part, or by its last two if two changed fields end alike.

    Args:
        run: the run.
        changed: its changed fields, from `changed_of`.
        own: its changes as an arm, from `changes_of`.
    """
    if own:
        flat = flat_recipe(run.recipe)
        changed = {field: flat[field] for field in own if field in flat}
    if not changed:
        return run.id
    chosen = run.recipe.name if own or run.id == run.recipe.default_run_id() else run.id
    ends = [field.rpartition(".")[2] for field in changed]
    names = [
        SHORT.get(end, end) if ends.count(end) == 1 else ".".join(field.split(".")[-2:])
        for field, end in zip(changed, ends, strict=True)
    ]
    values = (value if len(value) <= VALUE_CHARACTERS else f"{value[:VALUE_CHARACTERS]}…" for value in changed.values())
    parts = [f"{name}={value}" for name, value in zip(names, values, strict=True)]
    more = [f"and {len(parts) - CHANGES} more"] if len(parts) > CHANGES else []
    return " ".join([chosen, *parts[:CHANGES], *more])


def open_in_mlflow(run: Run) -> TrackedRun:
    """Open the run in MLflow, with name, parameters, tags, note and data. None of them needs a result of the run.

    Raises:
        TrackingError: MLflow refuses, or cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    own = changes_of(run.store, run.id)
    changed = changed_of(run, own)
    tags = {"changed": changes_in_words(changed) or "nothing", NOTE_TAG: _beginning(run, changed)}
    tracked = open_tracked_run(run, title=title_of(run, changed, own), tags=what_to_filter_by(run.recipe) | tags)
    try:
        log_datasets(tracked, [asked_dataset(run.recipe)])
    except MlflowException as error:
        raise tracking_error(error, run.store) from None
    return tracked


def announce(run: Run) -> Run:
    """Open the run in MLflow like `open_in_mlflow`, and return it. A problem of MLflow is logged.

    `mantis run` has opened the runs of this machine.
    """
    if PROGRESS_DIR in os.environ:
        return run
    try:
        open_in_mlflow(run)
    except TrackingError as error:
        logger.warning("%s", error)
    return run


def what_to_filter_by(recipe: Recipe) -> dict[str, str]:
    """Return tags that narrow down MLflow's table of runs to comparable ones."""
    return {
        "model.family": recipe.model.family,
        "model.base": recipe.model.base,
        "data.subsets": ",".join(subset.name for subset in recipe.data.subsets) or "all",
        "evaluation.profile": recipe.evaluation.profile,
        "evaluation.layout": recipe.evaluation.layout,
        "evaluation.scoring": recipe.evaluation.scoring,
        "evaluation.reference": recipe.evaluation.reference or "none",
    }


def note_of(run: Run, scores: Sequence[Score], link: str, failed: Mapping[str, str]) -> str:
    """Describe a run that has ended, in Markdown: reasons of failed steps, verdict, scores, and the report.

    Args:
        run: the run.
        scores: the rows of all its scores.json.
        link: where MLflow's page shows the report; empty if there is none.
        failed: the reason by failed step.
    """
    lines = [_beginning(run, changed_of(run))]
    lines += [f"**{step} failed.** {next(iter(reason.splitlines()), '')}" for step, reason in failed.items()]
    if scores:
        rows = (
            f"| {row.benchmark} | {row.skill} | {100 * row.accuracy:.1f} ± {row.half_width:.1f} |" for row in scores
        )
        lines += [verdict(scores), "\n".join(["| benchmark | skill | score, % |", "|---|---|---|", *rows])]
    if link:
        lines.append(f"[Report]({link})")
    return "\n\n".join(lines)


def _beginning(run: Run, changed: Mapping[str, str]) -> str:
    what = f"changed: {changes_in_words(changed)}" if changed else "unchanged"
    return f"Recipe `{run.recipe.name}`, {what}. Run `{run.id}`."
