from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mantis.models.weights.loading import model_folder
from mantis.store.base import ObjectStore


def test_the_ranks_of_a_node_copy_a_model_once(
    minio_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MANTIS_CACHE", str(tmp_path / "cache"))
    minio_store.put("models/m/config.json", b"{}")
    minio_store.put("models/m/model.safetensors", b"w" * 1_000_000)
    address = minio_store.uri("models/m")
    with ThreadPoolExecutor(8) as ranks:
        folders = set(ranks.map(model_folder, [address] * 8))
    assert len(folders) == 1
    assert caplog.text.count("Copying 1,000,002 bytes") == 1
    assert sorted(path.name for path in folders.pop().iterdir()) == ["config.json", "model.safetensors"]
