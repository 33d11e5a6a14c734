"""Mirrors benchmarks into a store, at sources/benchmarks/<name>/<revision>/files/. The manifest holds every hash.

The files of a published benchmark come from the hub, several at once. Those of your own benchmark come
from a folder; their revision is the hash of their content.
"""

import fnmatch
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.evaluation.benchmarks.benchmark_catalog import Benchmark, BenchmarkHub
from mantis.artifacts.layout import ArtifactKind, mirrored_files, revisions_of_benchmark
from mantis.artifacts.manifest import (
    Manifest,
    Number,
    check_files,
    commit_manifest,
    describe_files,
    provenance,
    read_manifest,
)
from mantis.errors import ConfigError, InputError
from mantis.hashing import fingerprint, sha256_file
from mantis.hub.client import HubFile, Repository, hub_errors, list_tree, newest_commit
from mantis.hub.download import fetch_files
from mantis.store.base import ObjectStore, concurrently, delete_tree, download_tree
from mantis.store.opening import open_store

logger = logging.getLogger(__name__)

UNKNOWN = (401, 403, 404)  # the hub's answers for a dataset that it does not have, or not for us
ASIDE = (
    "fetch into the same store from a machine with network access, or copy the files into "
    "<evaluation.source>/<benchmark>/."
)
REVISION = 1  # raise when a mirror of the same files would differ


def find_mirror(store: ObjectStore, benchmark: Benchmark) -> Manifest:
    """Find a benchmark's files in the store: the pinned revision or, if none is pinned, the only one.

    Raises:
        ConfigError: the benchmark is generated, so it has no mirror.
        InputError: the store has no mirror, or several revisions and none is pinned.
    """
    return _only(store, benchmark, _fitting(store, benchmark))


def _only(store: ObjectStore, benchmark: Benchmark, found: Mapping[str, Manifest]) -> Manifest:
    if len(found) == 1:
        return next(iter(found.values()))
    problem = (
        f"{benchmark.name} has {len(found)} mirrored revisions, and none is pinned."
        if found
        else f"{store.url} has no copy of {benchmark.name}."
    )
    remedy = (
        f"Pin one in the benchmark's file, as `hub.revision` or `stored`: {', '.join(found)}."
        if found
        else f"Run mantis benchmark fetch {benchmark.name}."
    )
    raise InputError(problem, remedy=remedy)


def check_mirrors(store: ObjectStore, benchmarks: Sequence[Benchmark]) -> None:
    """Check that the store has a mirror of every benchmark.

    Raises:
        ConfigError, InputError: as in `find_mirror`. One error names all benchmarks without a mirror.
    """
    found = [(benchmark, _fitting(store, benchmark)) for benchmark in benchmarks]
    missing = [benchmark.name for benchmark, revisions in found if not revisions]
    if missing:
        own = any(benchmark.stored for benchmark, revisions in found if not revisions)
        raise InputError(
            f"{store.url} has no copy of {', '.join(missing)}, which the recipe reads from there.",
            remedy=f"Run {'; '.join(f'mantis benchmark fetch {name}' for name in missing)}."
            + (" Name the YAML file of a benchmark of your own." if own else ""),
        )
    for benchmark, revisions in found:
        _only(store, benchmark, revisions)


def _fitting(store: ObjectStore, benchmark: Benchmark) -> dict[str, Manifest]:
    """The mirrored revisions that may be used: the pinned one alone, or all if none is pinned."""
    if benchmark.generated:
        raise _generated_here(benchmark)
    return {
        revision: manifest
        for revision, manifest in mirrored(store, benchmark).items()
        if benchmark.pinned in (None, revision)
    }


def mirrored(store: ObjectStore, benchmark: Benchmark) -> dict[str, Manifest]:
    """Every completely mirrored revision of the benchmark, with its manifest."""
    folders = store.children(revisions_of_benchmark(benchmark.name))[1]
    read = {folder.rsplit("/", 1)[-1]: read_manifest(store, folder) for folder in folders}
    return {revision: manifest for revision, manifest in read.items() if manifest is not None}


def fetch(store: ObjectStore, benchmark: Benchmark) -> Manifest:
    """Put the benchmark's files into the store: from the hub, or from `source` for your own benchmark.

    Files that are in the store are not fetched again. A gated dataset needs HF_TOKEN in the environment. HF_ENDPOINT
    sets another hub.

    Raises:
        ConfigError: the benchmark is generated, or no file says where its files are.
        InputError: the hub cannot be reached, refuses access, or lacks a file; or the folder has no file.
        IntegrityError: a downloaded file does not have the hash that the hub lists.
    """
    if benchmark.generated:
        raise _generated_here(benchmark)
    if benchmark.hub is None:
        return keep_files(store, benchmark)
    repository, revision, files = _listing(benchmark.hub)
    prefix = ArtifactKind.SOURCE.address(benchmark=benchmark.name, revision=revision)
    existing = _intact(store, prefix)
    if existing is not None:
        return existing
    label = repository.name.replace("/", "--")
    fetch_files(store, mirrored_files(prefix), repository, revision, files, label=label)
    config = {"dataset": repository.name, "revision": revision, "files": sorted(files)}
    return _commit(store, prefix, benchmark, config, {"dataset": repository.name, "revision": revision})


def keep_files(store: ObjectStore, benchmark: Benchmark) -> Manifest:
    """Copy the files of your own benchmark into the store. The hash of their content is their revision.

    Raises:
        ConfigError: the benchmark has no `source`.
        InputError: the source cannot be read, or has no file.
    """
    with tempfile.TemporaryDirectory(prefix="mantis-keep-") as temporary:
        folder = _source_folder(benchmark, Path(temporary))
        names = _files_below(folder, benchmark)
        revision = _revision(folder, names)
        prefix = ArtifactKind.SOURCE.address(benchmark=benchmark.name, revision=revision)
        existing = _intact(store, prefix)
        if existing is not None:
            return existing
        files = mirrored_files(prefix)
        concurrently(lambda name: store.put_file(f"{files}/{name}", folder / name), names)
    return _commit(store, prefix, benchmark, {"files": names, "revision": revision}, {"revision": revision})


def revision_of_source(benchmark: Benchmark) -> str:
    """The revision that `keep_files` gives to the files of your own benchmark. It raises the same errors."""
    with tempfile.TemporaryDirectory(prefix="mantis-keep-") as temporary:
        folder = _source_folder(benchmark, Path(temporary))
        return _revision(folder, _files_below(folder, benchmark))


def _source_folder(benchmark: Benchmark, temporary: Path) -> Path:
    if not benchmark.source:
        raise ConfigError(
            f"{benchmark.name} has no `source`, so nothing says where its files are.",
            remedy=f"Put them into a folder {benchmark.name}/ beside its YAML file, or write `source: FOLDER` into it.",
        )
    if "://" in benchmark.source:
        download_tree(open_store(benchmark.source), "", temporary)
        return temporary
    return Path(benchmark.source)


def _files_below(folder: Path, benchmark: Benchmark) -> list[str]:
    """The names of all files below the folder, relative to it, but for hidden ones."""
    below = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    names = sorted(path.as_posix() for path in below if not any(part.startswith(".") for part in path.parts))
    for pattern in benchmark.patterns:
        if not fnmatch.filter(names, pattern):
            raise InputError(
                f"{folder} has no file {pattern} of {benchmark.name}.",
                remedy="Put the file there, or correct `source`, `file` or `files` of the benchmark.",
            )
    return names


def _revision(folder: Path, names: list[str]) -> str:
    hashes = concurrently(lambda name: sha256_file(folder / name), names)
    return fingerprint(dict(zip(names, hashes, strict=True)))


def _intact(store: ObjectStore, prefix: str) -> Manifest | None:
    """The manifest at `prefix` if its files are as it says. Else its files are deleted."""
    existing = read_manifest(store, prefix)
    if existing is None:
        return None
    problems = check_files(store, existing)
    if not problems:
        return existing
    logger.warning("%s. The files are fetched again.", problems[0].rstrip("."))
    delete_tree(store, mirrored_files(prefix))
    return None


def _commit(
    store: ObjectStore, prefix: str, benchmark: Benchmark, config: dict[str, Any], summary: dict[str, Number]
) -> Manifest:
    described = describe_files(store, prefix)
    manifest = Manifest(
        kind=ArtifactKind.SOURCE,
        key=prefix,
        fingerprint=fingerprint({file.name: file.sha256 for file in described}),
        made_by=provenance(f"fetch-{benchmark.name}", REVISION, config),
        files=described,
        summary={**summary, "files": len(described)},
    )
    commit_manifest(store, manifest)
    return manifest


def _generated_here(benchmark: Benchmark) -> ConfigError:
    return ConfigError(f"{benchmark.name} is generated, not published.", remedy="Set evaluation.source = generated.")


def _listing(hub: BenchmarkHub) -> tuple[Repository, str, dict[str, HubFile]]:
    """Find the dataset under its present name, else under an earlier one: its commit, and the files that match."""
    repository, commit = _found_on_hub(hub)
    with hub_errors(repository):
        listed = {file.path: file for file in list_tree(repository, commit)}
    unmatched = [like for like in hub.files if not fnmatch.filter(listed, like)]
    if unmatched:
        raise InputError(
            f"{repository.name} has no file {', '.join(unmatched)} at revision {commit}.",
            remedy="Compare `hub` in the benchmark's YAML with the dataset's page.",
        )
    named = [name for name in sorted(listed) if any(fnmatch.fnmatch(name, like) for like in hub.files)]
    return repository, commit, {name: listed[name] for name in named}


def _found_on_hub(hub: BenchmarkHub) -> tuple[Repository, str]:
    """The first name under which the hub knows the dataset, and the commit of its revision."""
    from huggingface_hub.errors import HfHubHTTPError

    refused: list[tuple[Repository, HfHubHTTPError]] = []
    for name in (hub.dataset, *hub.moved_from):
        repository = Repository(name=name, kind="dataset", aside=ASIDE)
        with hub_errors(repository):
            try:
                return repository, newest_commit(repository, hub.revision or "main")
            except HfHubHTTPError as error:
                if error.response.status_code not in UNKNOWN:
                    raise
                refused.append((repository, error))
    with hub_errors(refused[0][0]):
        raise refused[0][1]
