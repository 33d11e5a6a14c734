"""The steps of data preparation. Heavy modules are imported when a step computes, so that reuse stays quick."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from components.data.mixture.epochs import capped
from components.data.published.fetched import fetched_sets, source_url
from components.data.sources.find import find_sources, open_source
from components.data.sources.reading import reading_of
from components.data.sources.source import TRAIN, RowSource
from components.data.sources.source_identity import Memory, hash_files
from mantis import synthetic
from mantis.artifacts.benchmark_images import BenchmarkFiles, benchmark_files
from mantis.artifacts.layout import ArtifactKind, subset_of
from mantis.artifacts.manifest import Manifest, Number
from mantis.artifacts.source_names import FETCHED, GENERATED
from mantis.config.recipe import Recipe
from mantis.errors import ConfigError, MantisError
from mantis.hashing import fingerprint
from mantis.runs.arms import arms_of
from mantis.runs.step_runner import Run, StepSpec, failure_recorded, open_run, result_refused, run_step

logger = logging.getLogger(__name__)

PREPARE_REVISION = 6
ASSEMBLE_REVISION = 3
HELD_OUT_REVISION = 1  # of the index of held-out rows, which mixtures without such rows do not have
CONTAMINATION_REVISION = 1
# The recipe fields that decide which rows are kept, beside those of the subset.
LIMITS = (
    "max_turn_characters",
    "max_image_pixels",
    "max_image_bytes",
    "max_frames",
    "max_video_bytes",
    "ignore",
)


def resolve_subsets(run: Run) -> list[str]:
    """List the subsets of the recipe, in its order. A recipe that names none gets every subset of the source.

    A validation split is a subset of its own, e.g. `nlvr2-val`. It is used only if the recipe names it.

    Raises:
        ConfigError: the source has no subset, or lacks one that the recipe names.
    """
    data = run.recipe.data
    there = _splits(run)
    named = [settings.name for settings in data.subsets]
    missing = [name for name in named if name not in there]
    if missing and data.source == FETCHED:
        raise ConfigError(
            f"data.source = fetched, but {', '.join(missing)} was not fetched into {run.store.url}.",
            remedy=f"Run mantis data fetch {' '.join(missing)}, or name the folder of your copy (--source).",
        )
    if missing:
        raise ConfigError(
            f"data.subsets names {', '.join(missing)}, but data.source = {data.source!r} does not have it.",
            remedy=f"Choose from {', '.join(there)}."
            + (
                " Add --set data.mixture=null to train on these subsets instead of the mixture." if data.mixture else ""
            ),
        )
    return named or [name for name, split in there.items() if split == TRAIN]


def datasets_of_arms(run: Run) -> list[tuple[str, str]]:
    """List an arm and a subset for each dataset that the arms of the run `run` need.

    Before a search has arms, these are the datasets of the run itself.

    Raises:
        ConfigError: as in `resolve_subsets`.
    """
    needed: dict[str, tuple[str, str]] = {}
    for arm in [open_run(arm, run.store.url) for arm in arms_of(run.store, run.id)] or [run]:
        for subset in resolve_subsets(arm):
            needed.setdefault(prepare_task(arm, subset).address(), (arm.id, subset))
    return list(needed.values())


def prepare(run: Run, subset: str) -> Manifest:
    """Prepare the dataset of one subset. docs/reference/artifacts.md lists its fields.

    Raises:
        InputError: no row can be used, or more rows are dropped than `data.max_dropped` allows.
    """
    data = run.recipe.data

    def work(prefix: str) -> dict[str, Number]:
        from components.data.prepare.prepare_subset import prepare_subset
        from components.data.prepare.row_validator import limits_of

        limits = limits_of(data, subset)
        with _source(run, subset) as source:
            return prepare_subset(run.store, prefix, subset, source, limits=limits, workers=data.workers)

    with failure_recorded(run, f"prepare-{subset}"):
        task = prepare_task(run, subset)
    dataset = run_step(run, task, work)
    if dataset.summary.get("unusable"):
        from components.data.prepare.ledger import require_few_dropped

        with result_refused(run, task.step, dataset):
            require_few_dropped(run.store, dataset, most=data.max_dropped)
    return dataset


def prepare_all(run: Run) -> list[Manifest]:
    """Prepare the dataset of every subset of the run, one after another.

    A subset with an error does not keep the others from being prepared, so one attempt shows all errors.

    Raises:
        MantisError: the first error. The records of the run hold all of them.
    """
    prepared, errors = [], []
    for subset in resolve_subsets(run):
        try:
            prepared.append(prepare(run, subset))
        except MantisError as error:
            logger.error("%s: %s", subset, error)
            errors.append(error)
    if errors:
        raise errors[0]
    return prepared


def prepare_task(run: Run, subset: str) -> StepSpec:
    """The step specification of `prepare` for `subset`: fingerprint and address of the dataset."""
    data = run.recipe.data
    config: dict[str, Any] = {
        "source": _source_identity(run, subset),
        "subset": data.subset(subset).identity("max_images"),
        "limits": data.identity(*LIMITS),
        **data.identity("format", "columns"),
    }
    return StepSpec(
        step=f"prepare-{subset}",
        kind=ArtifactKind.DATASET,
        revision=PREPARE_REVISION,
        config=config,
        parts={"subset": subset},
    )


def assemble(run: Run, datasets: Sequence[Manifest]) -> Manifest:
    """Assemble the mixture of the datasets, in the order of the subsets' names.

    If the recipe names benchmarks, the contamination check runs too.
    """
    from mantis.models.processing.chat_templates import load_chat_template
    from mantis.models.weights.mirror import model_identity

    recipe = run.recipe
    by_subset = dict(sorted((subset_of(dataset.key), dataset) for dataset in datasets))
    config: dict[str, Any] = {
        "model": model_identity(run.store, recipe.model, ("base",)),  # its tokenizer counts the tokens
        "prompt": load_chat_template(recipe.model.prompt).identity(),
        "data": recipe.data.identity("context_length", "holdout", "learn", "sampling"),
        "subsets": [_share(recipe, subset) for subset in by_subset],
        **({"held_out_index": HELD_OUT_REVISION} if recipe.data.holds_out else {}),
    }
    task = StepSpec(
        step="assemble",
        kind=ArtifactKind.MIXTURE,
        revision=ASSEMBLE_REVISION,
        config=config,
        inputs=by_subset,
    )

    def work(prefix: str) -> dict[str, Number]:
        from components.data.mixture.assemble import assemble_mixture

        return assemble_mixture(run, by_subset, prefix)

    mixture = run_step(run, task, work)
    if mixture.summary.get("dropped"):
        from components.data.prepare.ledger import require_few_untrainable

        with result_refused(run, task.step, mixture):
            read = {subset: int(dataset.summary["rows"]) for subset, dataset in by_subset.items()}
            rows = {subset: capped(number, recipe.data.subset(subset)) for subset, number in read.items()}
            require_few_untrainable(run.store, mixture, rows, most=recipe.data.max_dropped)
    if recipe.evaluation.benchmarks:
        check_benchmarks(run, mixture, by_subset)
    return mixture


def check_benchmarks(run: Run, mixture: Manifest, datasets: dict[str, Manifest]) -> Manifest:
    """Find the images of the recipe's benchmarks in the mixture.

    This is a step of its own within `assemble`. If it were part of the mixture's identity, a new benchmark would make a
    new mixture and a new training.
    """
    with failure_recorded(run, "contamination"):
        benchmarks = _benchmarks_identity(run)
    task = StepSpec(
        step="contamination",
        kind=ArtifactKind.CONTAMINATION,
        revision=CONTAMINATION_REVISION,
        config={"benchmarks": benchmarks},
        inputs={"mixture": mixture},
    )

    def work(prefix: str) -> dict[str, Number]:
        from components.data.contamination.contamination_check import check_contamination

        return check_contamination(run, mixture, datasets, prefix)

    return run_step(run, task, work)


def _benchmarks_identity(run: Run) -> dict[str, Any]:
    """Identity of the benchmarks' images: the generator's arguments, or the hash of every file with images."""
    settings = run.recipe.evaluation
    found = benchmark_files(run.recipe, run.store)
    generated = [name for name in settings.benchmarks if name not in found]
    identity: dict[str, Any] = {}
    if generated:
        identity = {
            "names": generated,
            "generator": synthetic.REVISION,
            "recipe": run.recipe.identity("seed"),
            "evaluation": settings.identity("samples_per_skill"),
        }
    memory = Memory(store=run.store)
    for name, files in found.items():
        compute = partial(_content, files)
        identity[name] = memory.recall("benchmark-images", files.store, files.entries, compute)
    return identity


def _content(files: BenchmarkFiles) -> str:
    return fingerprint([[file.key for file in files.entries], hash_files(files.store, files.entries)])


def _share(recipe: Recipe, subset: str) -> dict[str, Any]:
    settings = recipe.data.subset(subset)
    partial = settings.cap is not None or recipe.data.sampling != "none"
    if not partial:  # then neither the order nor the seed decides anything
        return settings.identity("name", "cap", "repeat", "held_out")
    share = settings.identity("name", "cap", "repeat", "order", "held_out")
    return share | recipe.identity("seed") if settings.order == "drawn" else share


def _splits(run: Run) -> dict[str, str]:
    """The subsets at the run's source, each with its split."""
    source = run.recipe.data.source
    if source == GENERATED:
        return dict.fromkeys(synthetic.SUBSETS, TRAIN)
    if source == FETCHED and not fetched_sets(run.store):
        return {}
    return {
        name: found.split
        for name, found in find_sources(source_url(run.store, source), reading_of(run.recipe.data)).items()
    }


def _source_identity(run: Run, subset: str) -> dict[str, Any]:
    """Identity of the raw rows: the generator's arguments, or the hash of the source's rows and images."""
    recipe = run.recipe
    if recipe.data.source == GENERATED:
        return {
            "generator": synthetic.REVISION,
            "recipe": recipe.identity("seed"),
            "data": recipe.data.identity("generated_conversations"),
        }
    source = open_source(source_url(run.store, recipe.data.source), subset, reading_of(recipe.data))
    return {"content": source.fingerprint(Memory(store=run.store))}


@contextmanager
def _source(run: Run, subset: str) -> Iterator[RowSource]:
    """Open the raw rows. Generated rows are first written as JPEGs and JSON, then read like any other source."""
    recipe = run.recipe
    if recipe.data.source != GENERATED:
        yield open_source(source_url(run.store, recipe.data.source), subset, reading_of(recipe.data))
        return
    with tempfile.TemporaryDirectory(prefix="mantis-demo-") as folder:
        synthetic.write_demo_subset(
            Path(folder),
            subset,
            seed=recipe.seed,
            conversations=recipe.data.generated_conversations,
            workers=recipe.data.workers,
        )
        yield open_source(folder, subset)
