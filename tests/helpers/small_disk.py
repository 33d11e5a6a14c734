"""A file system that is soon full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk_at(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system in memory at `folder`, which exists. `size` is in mount's units, such as `300k`."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a tmpfs: a full disk is not tested")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
