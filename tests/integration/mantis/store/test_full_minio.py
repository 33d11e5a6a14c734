"""A MinIO whose volume is full: the error says so, and nothing is half written."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from mantis.errors import StoreError
from mantis.store.base import ObjectStore
from mantis.store.opening import open_store
from tests.fixtures.stores import ACCESS_KEY, SECRET_KEY, running_minio

VOLUME = 32 << 20  # bytes
OBJECT = bytes(20 << 20)


@pytest.fixture
def small_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A store with room for one OBJECT."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={VOLUME}", "none", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a tmpfs: a full volume of MinIO is not tested")
    try:
        with running_minio(tmp_path / "data") as url:
            Minio(url.removeprefix("http://"), ACCESS_KEY, SECRET_KEY, secure=False).make_bucket("mantis")
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            yield open_store("s3://mantis/runs")
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_full_volume_is_named_and_keeps_what_it_has(small_store: ObjectStore) -> None:
    small_store.put("first", OBJECT)
    with pytest.raises(StoreError, match="XMinioStorageFull") as caught:
        small_store.put("second", OBJECT)
    assert "mantis gc" in caught.value.remedy
    assert [entry.key for entry in small_store.list("")] == ["first"]
    assert small_store.get("first") == OBJECT
