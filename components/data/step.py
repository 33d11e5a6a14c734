"""Data preparation as steps of a run. What works is imported when it works: reuse has to be quick."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.core import demo_tasks
from components.core.artifacts import Kind, Manifest, Number
from components.core.errors import ConfigError
from components.core.settings import Recipe
from components.core.steps import Run, Task, failure_recorded, run_step
from components.core.store import key_of
from components.data.sources.json_folder import JsonFolder, find_subsets

PREPARE_REVISION = 1
ASSEMBLE_REVISION = 1
GENERATED = "generated"


def resolve_subsets(run: Run) -> list[str]:
    """The names of the subsets that the recipe means, in its order, or in that of names.

    Raises:
        ConfigError: the source has no subset, or not one that the recipe names.
    """
    data = run.recipe.data
    there = list(demo_tasks.SUBSETS) if data.source == GENERATED else list(find_subsets(data.source))
    named = [settings.name for settings in data.subsets]
    missing = [name for name in named if name not in there]
    if missing:
        raise ConfigError(
            f"data.subsets names {', '.join(missing)}, which data.source = {data.source!r} does not have.",
            remedy=f"It has: {', '.join(there)}.",
        )
    return named or there


def prepare(run: Run, subset: str) -> Manifest:
    """The dataset of one subset; see docs/architecture.md for what lies at its address."""
    data = run.recipe.data
    step = f"prepare-{subset}"
    max_images = data.subset(subset).max_images
    with failure_recorded(run, step):
        source = _source_identity(run.recipe, subset)
    config: dict[str, Any] = {
        "source": source,
        "max_images": max_images,
        "max_image_pixels": data.max_image_pixels,
        "max_image_bytes": data.max_image_bytes,
    }
    task = Task(
        step=step,
        kind=Kind.DATASET,
        revision=PREPARE_REVISION,
        config=config,
        address=lambda made: f"datasets/{subset}/{made}",
    )

    def work(prefix: str) -> dict[str, Number]:
        from components.data.prepare import Limits, prepare_subset

        limits = Limits(
            max_images=max_images, max_image_pixels=data.max_image_pixels, max_image_bytes=data.max_image_bytes
        )
        with _source(run.recipe, subset) as source:
            return prepare_subset(run.store, prefix, subset, source, limits=limits, workers=data.workers)

    return run_step(run, task, work)


def assemble(run: Run, datasets: Sequence[Manifest]) -> Manifest:
    """The mixture of the datasets, in the order of their names."""
    from components.models.prompts import profile

    recipe = run.recipe
    by_subset = dict(sorted((_subset_of(run, dataset), dataset) for dataset in datasets))
    config: dict[str, Any] = {
        "model": recipe.model.identity(),
        "prompt": profile(recipe.model.prompt).model_dump(),
        "context_length": recipe.data.context_length,
        "subsets": [_share(recipe, subset) for subset in by_subset],
    }
    task = Task(
        step="assemble",
        kind=Kind.MIXTURE,
        revision=ASSEMBLE_REVISION,
        config=config,
        inputs=by_subset,
        address=lambda made: f"mixtures/{made}",
    )

    def work(prefix: str) -> dict[str, Number]:
        from components.data.assemble import assemble_mixture

        return assemble_mixture(run, by_subset, prefix)

    return run_step(run, task, work)


def _share(recipe: Recipe, subset: str) -> dict[str, Any]:
    settings = recipe.data.subset(subset)
    seed = None if settings.cap is None else recipe.seed  # it decides nothing else here
    return {"name": subset, "cap": settings.cap, "repeat": settings.repeat, "seed": seed}


def _subset_of(run: Run, dataset: Manifest) -> str:
    """datasets/<subset>/<fingerprint>: the address says which subset it is."""
    return key_of(run.store, dataset.uri).split("/")[1]


def _source_identity(recipe: Recipe, subset: str) -> dict[str, Any]:
    """What decides the raw rows: the generator's arguments, or the hash of everything that is read."""
    if recipe.data.source == GENERATED:
        return {
            "generator": demo_tasks.REVISION,
            "seed": recipe.seed,
            "conversations": recipe.data.generated_conversations,
        }
    return {"content": _folder(recipe, subset).fingerprint()}


@contextmanager
def _source(recipe: Recipe, subset: str) -> Iterator[JsonFolder]:
    """The raw rows; generated ones are written as JPEGs and JSON first, and read as anybody's are."""
    if recipe.data.source != GENERATED:
        yield _folder(recipe, subset)
        return
    with tempfile.TemporaryDirectory(prefix="mantis-demo-") as folder:
        demo_tasks.write_demo_subset(
            Path(folder),
            subset,
            seed=recipe.seed,
            conversations=recipe.data.generated_conversations,
            workers=recipe.data.workers,
        )
        yield JsonFolder(Path(folder) / subset)


def _folder(recipe: Recipe, subset: str) -> JsonFolder:
    found = find_subsets(recipe.data.source)
    if subset not in found:
        raise ConfigError(
            f"subset = {subset!r} is not at data.source = {recipe.data.source!r}.",
            remedy=f"It has: {', '.join(found)}.",
        )
    return found[subset]
