"""A MinIO whose volume is full: the error says so, and nothing is half written."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mantis.errors import StoreError
from mantis.store.base import ObjectStore
from mantis.store.opening import open_store
from tests.fixtures.stores import running_minio, use_bucket
from tests.helpers.small_disk import small_disk_at

VOLUME = "32m"
OBJECT = bytes(20 << 20)


@pytest.fixture
def small_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A store with room for one OBJECT."""
    with small_disk_at(tmp_path, VOLUME), running_minio(tmp_path / "data") as url:
        use_bucket(url, monkeypatch)
        yield open_store("s3://mantis/runs")


def test_a_full_volume_is_named_and_keeps_what_it_has(small_store: ObjectStore) -> None:
    small_store.put("first", OBJECT)
    with pytest.raises(StoreError, match="XMinioStorageFull") as caught:
        small_store.put("second", OBJECT)
    assert "mantis gc" in caught.value.remedy
    assert [entry.key for entry in small_store.list("")] == ["first"]
    assert small_store.get("first") == OBJECT
