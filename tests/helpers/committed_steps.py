"""Waiting for the checkpoints of a training that runs in a process of its own."""

import subprocess

from mantis.artifacts.checkpoint import committed
from mantis.store.base import ObjectStore
from tests.helpers.waiting import until


def until_committed(store: ObjectStore, prefix: str, *, step: int, process: "subprocess.Popen[str]") -> None:
    """Wait until a checkpoint of `step` or later is committed; AssertionError if the process ends before."""

    def there() -> bool:
        if any(found >= step for found in committed(store, prefix)):
            return True
        if process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        return False

    until(f"a checkpoint of step {step}", there)
