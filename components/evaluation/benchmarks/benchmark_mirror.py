"""Benchmarks mirrored into a store: sources/benchmarks/<name>/<revision>/files/, and a manifest with every hash."""

import fnmatch
import json
import logging
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from components.evaluation.benchmarks.benchmark_catalog import Benchmark, BenchmarkHub
from mantis.artifacts.layout import ArtifactKind, mirrored_files, revisions_of_benchmark
from mantis.artifacts.manifest import (
    Manifest,
    check_files,
    commit_manifest,
    describe_files,
    provenance,
    read_manifest,
)
from mantis.errors import ConfigError, InputError, IntegrityError
from mantis.hashing import fingerprint, sha256_file
from mantis.progress import Progress
from mantis.store.base import ObjectStore, delete_tree

logger = logging.getLogger(__name__)

REVISION = 1  # of this way of mirroring
HUB = "https://huggingface.co"
BLOCK = 1 << 20
TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True, kw_only=True)
class BenchmarkFile:
    """A file on the hub; `sha256` empty for those that it keeps in git itself."""

    size: int
    sha256: str


def find_mirror(store: ObjectStore, benchmark: Benchmark) -> Manifest:
    """The mirrored benchmark: of the pinned revision, or, where none is pinned, the only one that there is.

    Raises:
        ConfigError: the benchmark is not one that is fetched.
        InputError: it was not fetched, or in several revisions of which none is pinned.
    """
    return _only(store, benchmark, _fitting(store, benchmark))


def _only(store: ObjectStore, benchmark: Benchmark, found: Mapping[str, Manifest]) -> Manifest:
    if len(found) == 1:
        return next(iter(found.values()))
    problem = (
        f"{benchmark.name} was fetched in {len(found)} revisions and none is pinned."
        if found
        else f"{store.url} has no copy of {benchmark.name}."
    )
    remedy = (
        f"Pin one in benchmarks/{benchmark.name}.yaml: {', '.join(found)}."
        if found
        else f"Fetch it: mantis benchmark fetch {benchmark.name}."
    )
    raise InputError(problem, remedy=remedy)


def check_mirrors(store: ObjectStore, benchmarks: Sequence[Benchmark]) -> None:
    """Every one of the benchmarks can be read from its mirror.

    Raises:
        ConfigError, InputError: as `find_mirror`, but all that were not fetched are named at once.
    """
    found = [(benchmark, _fitting(store, benchmark)) for benchmark in benchmarks]
    missing = [benchmark.name for benchmark, revisions in found if not revisions]
    if missing:
        raise InputError(
            f"evaluation.source = 'mirror', and {store.url} has no copy of {', '.join(missing)}.",
            remedy=f"Fetch: {'; '.join(f'mantis benchmark fetch {name}' for name in missing)}.",
        )
    for benchmark, revisions in found:
        _only(store, benchmark, revisions)


def _fitting(store: ObjectStore, benchmark: Benchmark) -> dict[str, Manifest]:
    """The revisions that were fetched, of which only the pinned one counts where one is."""
    hub = _hub(benchmark)
    return {
        revision: manifest
        for revision, manifest in mirrored(store, benchmark).items()
        if hub.revision in (None, revision)
    }


def mirrored(store: ObjectStore, benchmark: Benchmark) -> dict[str, Manifest]:
    """Every revision of the benchmark that was fetched whole."""
    folders = store.children(revisions_of_benchmark(benchmark.name))[1]
    read = {folder.rsplit("/", 1)[-1]: read_manifest(store, folder) for folder in folders}
    return {revision: manifest for revision, manifest in read.items() if manifest is not None}


def fetch(store: ObjectStore, benchmark: Benchmark) -> Manifest:
    """Mirror the benchmark's files from the hub; files that are there are not fetched again.

    A gated dataset wants HF_TOKEN in the environment; HF_ENDPOINT names another hub.

    Raises:
        ConfigError: the benchmark is not one that is fetched.
        InputError: the hub cannot be reached or refuses, or has no such file.
        IntegrityError: a file is not the one that the hub lists.
    """
    hub = _hub(benchmark)
    revision, files = _listing(hub)
    prefix = ArtifactKind.SOURCE.address(benchmark=benchmark.name, revision=revision)
    existing = read_manifest(store, prefix)
    if existing is not None:
        problems = check_files(store, existing)
        if not problems:
            return existing
        logger.warning("%s. The files are fetched again.", problems[0].rstrip("."))
        delete_tree(store, mirrored_files(prefix))
    _fetch_files(store, mirrored_files(prefix), hub, revision, files)
    config = {"dataset": hub.dataset, "revision": revision, "files": sorted(files)}
    made = provenance(f"fetch-{benchmark.name}", REVISION, config)
    described = describe_files(store, prefix)
    manifest = Manifest(
        kind=ArtifactKind.SOURCE,
        key=prefix,
        fingerprint=fingerprint({file.name: file.sha256 for file in described}),
        made_by=made,
        files=described,
        summary={"dataset": hub.dataset, "revision": revision, "files": len(described)},
    )
    commit_manifest(store, manifest)
    return manifest


def _hub(benchmark: Benchmark) -> BenchmarkHub:
    if benchmark.hub is None:
        raise ConfigError(f"{benchmark.name} is generated, not published.", remedy="Set evaluation.source: generated.")
    return benchmark.hub


def _listing(hub: BenchmarkHub) -> tuple[str, dict[str, BenchmarkFile]]:
    """The revision, resolved where none is pinned, and the files that the patterns name."""
    at = hub.revision or "main"
    with _open(f"/api/datasets/{hub.dataset}/revision/{at}?blobs=true") as answer:
        told: dict[str, Any] = json.load(answer)
    listed = {
        file["rfilename"]: BenchmarkFile(
            size=int(file.get("size") or 0), sha256=(file.get("lfs") or {}).get("sha256", "")
        )
        for file in told["siblings"]
    }
    wanted = {name: file for name, file in listed.items() if any(fnmatch.fnmatch(name, like) for like in hub.files)}
    unmatched = [like for like in hub.files if not fnmatch.filter(listed, like)]
    if unmatched:
        raise InputError(
            f"{hub.dataset} has no file {', '.join(unmatched)} at revision {told['sha']}.",
            remedy="Compare `hub` in the benchmark's YAML with the dataset's page.",
        )
    return str(told["sha"]), wanted


def _fetch_files(
    store: ObjectStore, prefix: str, hub: BenchmarkHub, revision: str, files: dict[str, BenchmarkFile]
) -> None:
    progress = Progress(label=f"Fetching {hub.dataset}", total=sum(file.size for file in files.values()), unit="bytes")
    for name, remote in sorted(files.items()):
        there = store.stat(f"{prefix}/{name}")
        if there is not None and there.size == remote.size:
            progress.advance(remote.size)
            continue
        with tempfile.TemporaryDirectory(prefix="mantis-fetch-") as temporary:
            path = Path(temporary) / "file"
            with _open(f"/datasets/{hub.dataset}/resolve/{revision}/{name}") as answer, path.open("wb") as file:
                for block in _blocks(answer, name):
                    file.write(block)
                    progress.advance(len(block))
            if remote.sha256 and sha256_file(path) != remote.sha256:
                raise IntegrityError(
                    f"{name} is not the file that the hub lists.", remedy="Run the same command again."
                )
            store.put_file(f"{prefix}/{name}", path)


def _blocks(answer: IO[bytes], name: str) -> Iterator[bytes]:
    try:
        while block := answer.read(BLOCK):
            yield block
    except (OSError, HTTPException) as error:
        raise InputError(f"{name} broke off: {error}.", remedy="Run the same command again; it goes on.") from None


def _open(path: str) -> IO[bytes]:
    root = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    request = urllib.request.Request(root + urllib.parse.quote(path, safe="/?=&"))
    if token := os.environ.get("HF_TOKEN"):
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        opened: IO[bytes] = urllib.request.urlopen(request, timeout=TIMEOUT)
        return opened
    except urllib.error.HTTPError as error:
        gated = error.code in (401, 403)
        raise InputError(
            f"{root} refused {path}: {error.code} {error.reason}.",
            remedy="Accept the dataset's terms on its page and set HF_TOKEN." if gated else "Is the name right?",
        ) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise InputError(
            f"{root} cannot be reached: {reason}.",
            remedy="Fetch on a machine with network into the same store, or put the files into "
            "<evaluation.source>/<benchmark>/ by hand.",
        ) from None
