"""Finds out what `mantis data show` is asked for: a step of a run, a prepared set, or a source."""

from dataclasses import dataclass
from pathlib import Path

from components.data.showing.dataset_view import show_dataset
from components.data.showing.selection import Selection
from components.data.showing.shown_reasons import findings_of_mixture, plots_of, reasons_of_mixture
from components.data.showing.source_view import show_source
from components.data.sources.find import find_sources, open_file, open_remote_file
from components.data.sources.reading import reading_of
from components.data.sources.source import RowSource
from components.training.step import mixture_of
from components.training.step_view import view_step
from mantis.artifacts.layout import ArtifactKind, datasets_of
from mantis.artifacts.manifest import Manifest, read_manifest
from mantis.artifacts.store_addresses import key_below
from mantis.config.recipe import Recipe
from mantis.errors import ConfigError, did_you_mean
from mantis.runs.records import runs
from mantis.runs.step_runner import open_run
from mantis.showing.shown_data import ShownData
from mantis.store.base import ObjectStore
from mantis.store.store_url import folder_of, scheme_of


@dataclass(frozen=True, kw_only=True)
class ShowRequest:
    """What to show.

    Args:
        what: a folder, file or URL with rows; a prepared set's key or subset; or the id of a run.
        subset: the subset of a source that has several; empty for the only one.
        step: step of a run, from 1; None for the first one.
        chosen: the rows to look at.
    """

    what: str
    subset: str
    step: int | None
    chosen: Selection


def show_target(store: ObjectStore, recipe: Recipe, asked: ShowRequest) -> ShownData:
    """Show what `asked` names. `recipe` decides how rows of sources and prepared sets are read.

    Raises:
        ConfigError: there is no such run, set or source, or the options do not fit it.
    """
    if asked.step is not None or asked.what in runs(store):
        if asked.chosen.rows:
            raise ConfigError(
                "--row names a row of a source or a prepared set, not of a step.",
                remedy="Leave it out, or name the source.",
            )
        return _step(store, asked)
    if dataset := _dataset(store, asked.what):
        return show_dataset(store, recipe, dataset, asked.chosen)
    local = _local(asked.what)
    if local is None or "://" in asked.what or local.exists():
        return show_source(store, recipe, _source(recipe, asked), asked.chosen)
    known = [*runs(store), *_subsets(store)]
    raise ConfigError(
        f"{asked.what!r} is neither a folder, a file, a run nor a prepared set in {store.url}.",
        remedy=f"{did_you_mean(asked.what, known)}`mantis data list` shows prepared sets, `mantis status` runs.",
    )


def _step(store: ObjectStore, asked: ShowRequest) -> ShownData:
    run = open_run(asked.what, store.url)
    mixture = mixture_of(run)
    if mixture is None:
        raise ConfigError(
            f"The run {run.id} has no mixture yet.", remedy="Continue it, or prepare its data (mantis data prepare)."
        )
    view = view_step(run, mixture, asked.step or 1, shown=asked.chosen.shown)
    reasons = reasons_of_mixture(store, mixture)
    found = findings_of_mixture(store, mixture, {(row.subset, row.id) for row in view.rows})
    rows = [row.model_copy(update={"findings": found.get((row.subset, row.id), ())}) for row in view.rows]
    return ShownData(
        kind="step",
        name=run.id,
        facts={
            "samples": view.step.samples,
            "micro-steps": len(view.step.micro_steps),
            "ranks": view.step.ranks,
            "ranks as in": "the last start" if view.started else "the recipe",
            "planned idle time": view.step.idle,
            "samples of an epoch": len(view.reader),
            "model family": run.recipe.model.family,
            "chat template": run.recipe.model.prompt,
        },
        step=view.step,
        rows=tuple(rows),
        reasons=reasons,
        plots=plots_of(view.reader.tokens.tolist(), view.reader.images.tolist(), reasons),
    )


def _dataset(store: ObjectStore, what: str) -> Manifest | None:
    """The prepared set with this address, or the only one of the subset with this name; None if there is none.

    Raises:
        ConfigError: several sets of the subset were prepared.
    """
    key = key_below(store.url, what).strip("/")
    if ArtifactKind.DATASET.pattern.parse(key):
        return read_manifest(store, key)
    if "/" in what or what not in _subsets(store):
        return None
    found = [manifest for each in store.children(datasets_of(what))[1] if (manifest := read_manifest(store, each))]
    if len(found) > 1:
        raise ConfigError(
            f"{what!r} was prepared {len(found)} times: {', '.join(manifest.key for manifest in found)}.",
            remedy="Name one of these keys.",
        )
    return found[0] if found else None


def _subsets(store: ObjectStore) -> list[str]:
    return [folder.rpartition("/")[2] for folder in store.children(ArtifactKind.DATASET.folder)[1]]


def _local(what: str) -> Path | None:
    """The local folder or file that `what` means; None for the address of a store or of the hub."""
    return folder_of(what, field="WHAT") if scheme_of(what) in ("", "file") else None


def _source(recipe: Recipe, asked: ShowRequest) -> RowSource:
    reading = reading_of(recipe.data)
    local = _local(asked.what)
    if local is not None and local.is_file():
        return open_file(local, reading)
    if local is None and (file := open_remote_file(asked.what, reading)):
        return file
    found = find_sources(asked.what, reading)
    if not asked.subset and len(found) > 1:
        raise ConfigError(
            f"{asked.what} holds several subsets.", remedy=f"Choose one with --subset: {', '.join(found)}."
        )
    name = asked.subset or next(iter(found))
    if name not in found:
        raise ConfigError(
            f"--subset {name} is not at {asked.what}.",
            remedy=f"{did_you_mean(name, found)}Choose one of {', '.join(found)}.",
        )
    return found[name]
