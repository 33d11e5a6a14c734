"""Lists the training data: published sets, subsets at a source, and subsets in the store, with their rows."""

from collections.abc import Iterator
from dataclasses import dataclass

from components.data.mixture.epoch_estimate import SubsetSize
from components.data.published.fetched import fetched_sets, source_url
from components.data.published.published_sets import PublishedSubset, published
from components.data.sources.find import find_sources
from components.data.sources.reading import reading_of
from components.data.sources.source import RowSource
from components.data.step import prepare_task, resolve_subsets
from mantis.artifacts.layout import ArtifactKind, datasets_of
from mantis.artifacts.manifest import Manifest, read_manifest
from mantis.artifacts.source_names import FETCHED, GENERATED
from mantis.config.data_settings import DataSettings
from mantis.config.recipe import Recipe
from mantis.errors import ConfigError
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore
from mantis.synthetic.dataset import shares


@dataclass(frozen=True, kw_only=True)
class Overview:
    """One subset of the listing. `published` is None for a set that is not published.

    `there` describes its rows at the source or in the store as text; empty if it has none.
    """

    name: str
    published: PublishedSubset | None
    there: str


def overview(store: ObjectStore, source: str | None, form: str | None = None) -> list[Overview]:
    """List every published set, then the other subsets at `source`. Without a `source`, the store is listed.

    `form` is that of `data.format`.
    """
    there = _at_source(source, form) if source is not None else _in_store(store)
    names = [*published(), *sorted(set(there) - set(published()))]
    return [Overview(name=name, published=published().get(name), there=there.get(name, "")) for name in names]


def _at_source(source: str, form: str | None) -> dict[str, str]:
    words = {}
    for name, found in find_sources(source, reading_of(DataSettings(format=form))).items():
        extent = found.extent()
        words[name] = f"{extent.rows:,} rows, {extent.bytes / 1e9:.2f} GB, {found.described()}"
    return words


def _in_store(store: ObjectStore) -> dict[str, str]:
    words: dict[str, list[str]] = {}
    for name, manifest in fetched_sets(store).items():
        size = sum(file.size for file in manifest.files) / 1e9
        words.setdefault(name, []).append(f"fetched, {size:.2f} GB")
    for name, manifest in _prepared(store):
        rows, kept = manifest.summary.get("rows", 0), manifest.summary.get("kept", 0)
        words.setdefault(name, []).append(f"prepared {manifest.fingerprint[:8]}: {kept:,} of {rows:,} rows kept")
    return {name: "; ".join(said) for name, said in words.items()}


def _prepared(store: ObjectStore) -> Iterator[tuple[str, Manifest]]:
    for subset in store.children(ArtifactKind.DATASET.folder)[1]:
        for key in store.children(subset)[1]:
            manifest = read_manifest(store, key)
            if manifest is not None and manifest.kind is ArtifactKind.DATASET:
                yield subset.rpartition("/")[2], manifest


def sizes_of(store: ObjectStore, recipe: Recipe) -> dict[str, SubsetSize]:
    """Number of rows of every subset of `recipe`. The recipe must name every subset (`written_out`).

    The number comes from the prepared dataset in the store, else from the source, else from the published counts.

    Raises:
        ConfigError: a subset is neither at the source nor published, so its size is unknown.
    """
    run = Run(id="plan", store=store, recipe=recipe)
    sources = _sources(run)
    names = [settings.name for settings in recipe.data.subsets] or resolve_subsets(run)
    return {name: _size(run, name, sources.get(name)) for name in names}


def _sources(run: Run) -> dict[str, RowSource]:
    """The subsets at the recipe's source; empty if the data is generated or not fetched yet."""
    source = run.recipe.data.source
    if source == GENERATED or (source == FETCHED and not fetched_sets(run.store)):
        return {}
    return find_sources(source_url(run.store, source), reading_of(run.recipe.data))


def _size(run: Run, name: str, source: RowSource | None) -> SubsetSize:
    generated = run.recipe.data.source == GENERATED
    if (source is not None or generated) and run.store.children(datasets_of(name))[1]:
        task = prepare_task(run, name)
        manifest = read_manifest(run.store, task.address())
        if manifest is not None:
            rows, images = int(manifest.summary["kept"]), int(manifest.summary["images"])
            return SubsetSize(rows=rows, known="prepared", images=images / rows)
    if generated:
        return SubsetSize(rows=shares(run.recipe.data.generated_conversations)[name], known="to be generated")
    if source is not None:
        return SubsetSize(rows=source.rows.count(), known="at the source")
    if name in published():
        return SubsetSize(rows=published()[name].rows, known="published")
    raise ConfigError(
        f"data.subsets names {name}, but it is neither at data.source = {run.recipe.data.source!r} nor published.",
        remedy="Name the folder or bucket that holds it (--source).",
    )
