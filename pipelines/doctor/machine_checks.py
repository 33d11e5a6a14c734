"""Check this machine, with a remedy for each problem."""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from mantis.artifacts.store_addresses import check_store
from mantis.errors import MantisError
from mantis.store.local import LocalStore
from mantis.store.opening import open_store

DISK_GB = 10
MEMORY_GB = 6


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check. `ok` None stands for an optional thing that is missing or not judged."""

    what: str
    ok: bool | None
    found: str
    remedy: str = ""


def examine(store_url: str) -> list[Finding]:
    """Return every finding, cheap ones first."""
    checks: list[Callable[[], Finding]] = [
        _packages,
        _cores_and_memory,
        lambda: _disk(store_url),
        lambda: _store(store_url),
        _gpu,
        _flash_attention,
        _cluster,
    ]
    return [check() for check in checks]


def _packages() -> Finding:
    names = ("torch", "transformers", "deepspeed", "kfp", "mlflow", "pylance", "minio")
    missing = [name for name in names if find_spec("lance" if name == "pylance" else name) is None]
    if missing:
        return Finding(what="packages", ok=False, found=f"missing: {', '.join(missing)}", remedy="Run `make venv`.")
    return Finding(what="packages", ok=True, found=", ".join(f"{name} {metadata.version(name)}" for name in names))


def _cores_and_memory() -> Finding:
    import psutil

    cores = len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory().available / 1e9
    enough = cores >= 2 and memory >= MEMORY_GB
    remedy = f"Use 2 cores and {MEMORY_GB} GB for the demo. With one core set training.gpus_per_node=1."
    return Finding(what="cores, memory", ok=enough, found=f"{cores} cores, {memory:.0f} GB free", remedy=remedy)


def _disk(url: str) -> Finding:
    """The disk of a local store; of a store elsewhere the scratch of this machine."""
    try:
        store = open_store(url)
        folder = store.root if isinstance(store, LocalStore) else Path(tempfile.gettempdir())
    except MantisError:  # `_store` says why
        folder = Path.cwd()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free / 1e9
    return Finding(
        what="disk",
        ok=free >= DISK_GB,
        found=f"{free:.0f} GB free in {folder}",
        remedy=f"Free {DISK_GB} GB there, or name another place.",
    )


def _store(url: str) -> Finding:
    try:
        check_store(open_store(url))
    except MantisError as error:
        return Finding(what="store", ok=False, found=error.problem, remedy=error.remedy)
    return Finding(what="store", ok=True, found=f"{url}: written, read, deleted")


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(
            what="GPU", ok=None, found="none: training runs on CPU, which suffices for the demo and tests alone"
        )
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding(what="GPU", ok=True, found=", ".join(names))


def _flash_attention() -> Finding:
    there = find_spec("flash_attn") is not None
    return Finding(
        what="flash-attn",
        ok=there or None,
        found=metadata.version("flash-attn") if there else "not installed",
        remedy="Run pip install -c constraints.txt '.[gpu]' on a GPU machine with nvcc.",
    )


def _cluster() -> Finding:
    from components.training.launch.kubernetes_client import (
        SERVICE_ACCOUNT,
    )  # importing the Kubernetes client takes a second

    where = os.environ.get("KUBECONFIG")
    else_found = "by this pod's account" if SERVICE_ACCOUNT.exists() else "no KUBECONFIG: local runs only"
    return Finding(what="Kubernetes", ok=None, found=f"KUBECONFIG={where}" if where else else_found)
