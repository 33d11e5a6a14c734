"""Mirrors benchmarks into a store, at sources/benchmarks/<name>/<revision>/files/. The manifest holds every hash."""

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

REVISION = 1  # raise when a mirror of the same files would differ
HUB = "https://huggingface.co"
BLOCK = 1 << 20
TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True, kw_only=True)
class BenchmarkFile:
    """A file on the hub. `sha256` is empty for a file that the hub keeps in git itself, without LFS."""

    size: int
    sha256: str


def find_mirror(store: ObjectStore, benchmark: Benchmark) -> Manifest:
    """Find the mirror of a benchmark: the pinned revision or, if none is pinned, the only mirrored one.

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
        f"Pin one in benchmarks/{benchmark.name}.yaml: {', '.join(found)}."
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
        raise InputError(
            f"evaluation.source = 'mirror', but {store.url} has no copy of {', '.join(missing)}.",
            remedy=f"Run {'; '.join(f'mantis benchmark fetch {name}' for name in missing)}.",
        )
    for benchmark, revisions in found:
        _only(store, benchmark, revisions)


def _fitting(store: ObjectStore, benchmark: Benchmark) -> dict[str, Manifest]:
    """The mirrored revisions that may be used: the pinned one alone, or all if none is pinned."""
    hub = _hub(benchmark)
    return {
        revision: manifest
        for revision, manifest in mirrored(store, benchmark).items()
        if hub.revision in (None, revision)
    }


def mirrored(store: ObjectStore, benchmark: Benchmark) -> dict[str, Manifest]:
    """Every completely mirrored revision of the benchmark, with its manifest."""
    folders = store.children(revisions_of_benchmark(benchmark.name))[1]
    read = {folder.rsplit("/", 1)[-1]: read_manifest(store, folder) for folder in folders}
    return {revision: manifest for revision, manifest in read.items() if manifest is not None}


def fetch(store: ObjectStore, benchmark: Benchmark) -> Manifest:
    """Mirror the benchmark's files from the hub. Files that are in the store are not fetched again.

    A gated dataset needs HF_TOKEN in the environment. HF_ENDPOINT sets another hub.

    Raises:
        ConfigError: the benchmark is generated, so it is not on the hub.
        InputError: the hub cannot be reached, refuses access, or lacks a file.
        IntegrityError: a downloaded file does not have the hash that the hub lists.
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
        raise ConfigError(f"{benchmark.name} is generated, not published.", remedy="Set evaluation.source = generated.")
    return benchmark.hub


def _listing(hub: BenchmarkHub) -> tuple[str, dict[str, BenchmarkFile]]:
    """Look up the commit of the revision and the files that match the patterns."""
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
                    f"{name} does not have the SHA-256 that the hub lists.", remedy="Run the same command again."
                )
            store.put_file(f"{prefix}/{name}", path)


def _blocks(answer: IO[bytes], name: str) -> Iterator[bytes]:
    try:
        while block := answer.read(BLOCK):
            yield block
    except (OSError, HTTPException) as error:
        raise InputError(
            f"The download of {name} broke off: {error}.", remedy="Run the same command again. It keeps whole files."
        ) from None


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
            remedy="Accept the dataset's terms on its page and set HF_TOKEN." if gated else "Check the dataset's name.",
        ) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise InputError(
            f"{root} cannot be reached: {reason}.",
            remedy="Fetch into the same store from a machine with network access, or copy the files into "
            "<evaluation.source>/<benchmark>/.",
        ) from None
