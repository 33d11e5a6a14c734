"""Set something up once for all processes that run the tests of one session."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def set_up_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """Return the folder `name`, which the first process builds while the others wait.

    pytest-xdist gives each worker a temporary folder below the session's own. Without workers there is one process.

    Args:
        factory: pytest's temporary folders.
        name: the folder, unique in the session.
        build: fills the folder, which does not exist yet. A folder that a failed build leaves is not used.
    """
    session = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    folder = session / f"shared-{name}"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            partial = factory.mktemp(name) / name
            build(partial)
            partial.rename(folder)
    return folder
