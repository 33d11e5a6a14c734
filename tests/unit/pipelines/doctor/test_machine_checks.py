"""What `mantis doctor` says of this machine."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from pipelines.doctor import machine_checks

Usage = namedtuple("Usage", "total used free")


def test_the_disk_is_that_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is on a full disk, and does not exist yet. The current folder has room."""
    full = tmp_path / "full"
    full.mkdir()
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: Usage(1e12, 0, 3e9 if Path(path).is_relative_to(full) else 500e9)
    )
    found = machine_checks.examine((full / "new" / "store").as_uri())
    (disk,) = (finding for finding in found if finding.what == "disk")
    assert (disk.ok, disk.found) == (False, f"3 GB free in {full}/new/store")
    found = machine_checks.examine((tmp_path / "store").as_uri())
    (disk,) = (finding for finding in found if finding.what == "disk")
    assert (disk.ok, disk.found) == (True, f"500 GB free in {tmp_path}/store")
