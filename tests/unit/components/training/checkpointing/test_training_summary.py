"""training.json: it says that a training is whole, and holds its time by cause."""

import json

import pytest

from components.training.checkpointing.training_summary import (
    SUMMARY,
    is_whole,
    read_summary,
    with_launching,
    write_summary,
)
from mantis.artifacts.manifest import Number
from mantis.errors import IntegrityError, VersionError
from mantis.store.local import LocalStore


def test_a_summary_comes_last_and_back(local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    local_store.put("checkpoints/f/model/config.json", b"{}")
    local_store.put("checkpoints/f/metrics.jsonl", b"")
    assert not is_whole(local_store, "checkpoints/f")
    named: list[list[str]] = []
    commit = LocalStore.commit

    def noted(store: LocalStore, key: str, data: bytes, *, after: list[str]) -> None:
        named.append([key, *after])
        commit(store, key, data, after=after)

    monkeypatch.setattr(LocalStore, "commit", noted)
    write_summary(local_store, "checkpoints/f", {"steps": 3, "loss": 0.5})
    assert named == [[f"checkpoints/f/{SUMMARY}", "checkpoints/f/metrics.jsonl", "checkpoints/f/model/config.json"]]
    assert is_whole(local_store, "checkpoints/f")
    assert json.loads(local_store.get(f"checkpoints/f/{SUMMARY}")) == {"schema_version": 1, "steps": 3, "loss": 0.5}
    assert read_summary(local_store, "checkpoints/f") == {"steps": 3, "loss": 0.5}


def test_a_summary_that_cannot_be_read_is_named(local_store: LocalStore) -> None:
    local_store.put(f"checkpoints/f/{SUMMARY}", b'{"schema_version": 7}')
    with pytest.raises(VersionError, match=f"checkpoints/f/{SUMMARY} has schema_version = 7"):
        read_summary(local_store, "checkpoints/f")
    local_store.put(f"checkpoints/f/{SUMMARY}", b"{")
    with pytest.raises(IntegrityError, match=f"checkpoints/f/{SUMMARY} is not JSON"):
        read_summary(local_store, "checkpoints/f")


def test_the_launcher_s_time_counts_as_other() -> None:
    ranks: dict[str, Number] = {"seconds_step": 60.0, "seconds_other": 5.0, "seconds_start": 10.0, "steps": 3}
    found = with_launching(ranks, before=20.0, wall=80.0)
    assert found == ranks | {"seconds_other": 5.0 + 25.0, "goodput": 0.6}
    short = with_launching(ranks, before=0.0, wall=70.0)
    assert short["seconds_other"] == 5.0, "the ranks have counted more than the launcher"
    assert short["goodput"] == pytest.approx(60 / 75)
