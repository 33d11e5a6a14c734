import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from components.training.checkpointing.saver import (
    OUTAGE_SECONDS,
    Saver,
    TrainingState,
    delete_checkpoint,
    delete_uncommitted,
    fetch,
    read_state,
    superseded,
    through_outages,
)
from components.training.checkpointing.snapshot import Snapshot
from mantis.artifacts.checkpoint import Commit, committed, read_commit
from mantis.artifacts.layout import COMMIT, step_folder
from mantis.artifacts.manifest import File
from mantis.errors import IntegrityError, StoreError, TrainingError
from mantis.hashing import sha256_bytes
from mantis.store.local import LocalStore
from tests.helpers.waiting import HANG_SECONDS

PREFIX = "checkpoints/x"
SHARDS = {
    "zero_pp_rank_0_mp_rank_00_optim_states.pt": b"first rank",
    "zero_pp_rank_1_mp_rank_00_optim_states.pt": b"second rank",
    "zero_pp_rank_10_mp_rank_00_optim_states.pt": b"eleventh rank",
    "state.json": b"{}",
}


def put(store: Any, step: int, *, commit: bool = True) -> Commit:
    base = f"{PREFIX}/{step_folder(step)}"
    for name, data in SHARDS.items():
        store.put(f"{base}/{name}", data)
    files = tuple(File(name=name, size=len(data), sha256=sha256_bytes(data)) for name, data in SHARDS.items())
    made = Commit(step=step, world_size=11, zero_stage=3, files=files)
    if commit:
        store.put(f"{base}/{COMMIT}", made.model_dump_json().encode())
    return made


def test_only_committed_steps_count_newest_first(local_store: LocalStore) -> None:
    put(local_store, 5)
    put(local_store, 100)
    put(local_store, 120, commit=False)
    assert committed(local_store, PREFIX) == [100, 5]
    delete_uncommitted(local_store, PREFIX)
    assert not list(local_store.list(f"{PREFIX}/{step_folder(120)}"))
    assert committed(local_store, PREFIX) == [100, 5]
    delete_checkpoint(local_store, PREFIX, step_folder(100))
    assert committed(local_store, PREFIX) == [5]
    assert len(list(local_store.list(PREFIX))) == len(SHARDS) + 1


def test_a_rank_fetches_its_own_shards_and_what_is_everybodys(local_store: LocalStore, tmp_path: Path) -> None:
    commit = put(local_store, 5)
    assert read_commit(local_store, PREFIX, 5) == commit
    fetch(local_store, PREFIX, commit, rank=1, folder=tmp_path / "one")
    found = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    names = ["zero_pp_rank_1_mp_rank_00_optim_states.pt", "state.json"]
    assert found == {name: SHARDS[name] for name in names}


@pytest.mark.parametrize(
    ("data", "problem"), [(b"first rang", "was changed"), (b"first", "has 5 bytes, not 10"), (None, "is missing")]
)
def test_a_damaged_file_is_found(local_store: LocalStore, tmp_path: Path, data: bytes | None, problem: str) -> None:
    commit = put(local_store, 5)
    key = f"{PREFIX}/{step_folder(5)}/zero_pp_rank_0_mp_rank_00_optim_states.pt"
    if data is None:
        local_store.delete(key)
    else:
        local_store.put(key, data)
    with pytest.raises(IntegrityError, match=problem):
        fetch(local_store, PREFIX, commit, rank=0, folder=tmp_path / "zero")


def test_for_another_layout_the_files_of_all_ranks_are_fetched(local_store: LocalStore, tmp_path: Path) -> None:
    fetch(local_store, PREFIX, put(local_store, 5), rank=None, folder=tmp_path / "all")
    assert {path.name for path in (tmp_path / "all").iterdir()} == SHARDS.keys()


def test_a_commit_that_is_cut_off_is_no_commit(local_store: LocalStore) -> None:
    put(local_store, 5)
    local_store.put(f"{PREFIX}/{step_folder(5)}/{COMMIT}", b'{"step": 5')
    with pytest.raises(IntegrityError, match="is no COMMIT"):
        read_commit(local_store, PREFIX, 5)


def test_the_last_few_and_every_so_many_steps_are_kept() -> None:
    steps = [90, 80, 70, 60, 50, 40, 30]
    assert superseded(steps, keep=2, keep_every=None) == [70, 60, 50, 40, 30]
    assert superseded(steps, keep=2, keep_every=30) == [70, 50, 40]
    assert superseded(steps, keep=2, keep_every=30, best=50) == [70, 40]


# As a training of schema version 1 stored it after step 2.
OLD_STATE = """{
 "step": 2,
 "seed": 42,
 "samples": 12,
 "tokens": 233,
 "seconds": {"queue": 0.0, "start": 16.592143511457152, "step": 0.7577989119998847},
 "window": {"steps": 1.0, "taken": 1.0, "loss": 6.619439125061035, "seconds": 0.03591829999993479},
 "recent_losses": [6.698974609375, 6.619439125061035],
 "skipped": [1]
}"""


def test_a_state_of_schema_version_1_is_read_with_its_rows(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 6.698974609375, "samples": 6.0}]
    (tmp_path / "state.json").write_text(OLD_STATE)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    old = json.loads(OLD_STATE)
    assert read_state(tmp_path, "a checkpoint") == TrainingState(
        schema_version=2,
        step=2,
        seed=42,
        samples=12,
        tokens=233,
        callbacks={
            "metric_rows": {"rows": rows, "window": old["window"], "pending": {}},
            "loss_spikes": {"recent": [6.698974609375, 6.619439125061035], "skipped": [1]},
            "goodput": {"seconds": old["seconds"]},
        },
    )
    (tmp_path / "state.json").write_text(json.dumps(old | {"schema_version": 1}))
    assert read_state(tmp_path, "a checkpoint").callbacks["loss_spikes"]["skipped"] == [1]


def test_a_state_comes_back_bit_by_bit_with_values_that_are_not_finite(tmp_path: Path) -> None:
    values = {"loss": 0.1 + 0.2, "norm": math.inf, "bad": math.nan}
    state = TrainingState(step=3, seed=1, callbacks={"mine": {"values": values, "list": [1, "two", None]}})
    (tmp_path / "state.json").write_text(state.model_dump_json())
    read = read_state(tmp_path, "a checkpoint")
    assert (read.schema_version, read.step, read.callbacks["mine"]["list"]) == (3, 3, [1, "two", None])
    assert repr(read.callbacks["mine"]["values"]) == repr(values)


def test_an_interrupted_deletion_leaves_no_step_that_counts(local_store: LocalStore, monkeypatch: Any) -> None:
    put(local_store, 5)
    deleted: list[str] = []

    def delete(key: str) -> None:
        if deleted:
            raise StoreError("The store is away.", remedy="Wait.")
        deleted.append(key)
        LocalStore.delete(local_store, key)

    monkeypatch.setattr(local_store, "delete", delete)
    with pytest.raises(StoreError):
        delete_checkpoint(local_store, PREFIX, step_folder(5))
    assert deleted == [f"{PREFIX}/{step_folder(5)}/{COMMIT}"]
    assert committed(local_store, PREFIX) == []


def test_no_file_is_deleted_before_the_commit_however_long_that_takes(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are deleted at the same time: their order alone would not keep a half-deleted step from counting."""
    put(local_store, 5)
    deleted: list[str] = []

    def delete(store: LocalStore, key: str) -> None:
        if key.endswith(COMMIT):
            time.sleep(0.1)
        usual(store, key)
        deleted.append(key)

    usual = LocalStore.delete
    monkeypatch.setattr(LocalStore, "delete", delete)
    delete_checkpoint(local_store, PREFIX, step_folder(5))
    assert deleted[0].endswith(COMMIT)
    assert len(deleted) == 1 + len(SHARDS)


def test_a_store_that_is_away_is_tried_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    module = "components.training.checkpointing.saver.time"
    monkeypatch.setattr(f"{module}.monotonic", lambda: 7.0 + sum(pauses))
    monkeypatch.setattr(f"{module}.sleep", pauses.append)
    away = StoreError("away", remedy="wait")
    answers: list[StoreError | None] = [away, away, None]

    def action() -> str:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is not None:
            raise answer
        return "stored"

    assert through_outages(action) == "stored"
    assert pauses == [1, 2]
    answers[:], pauses[:] = [away], []
    with pytest.raises(StoreError):
        through_outages(action)
    assert pauses == [1, 2, 4, 8, *[15] * 7]
    assert sum(pauses) == OUTAGE_SECONDS


class RankEngine:
    """A DeepSpeed engine that saves one file per rank, as DeepSpeed names it."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.checkpoint_engine: Any = None
        self.asked: dict[str, Any] = {}

    def save_checkpoint(self, folder: str, **asked: Any) -> None:
        self.asked = asked
        name = f"zero_pp_rank_{self.rank}_mp_rank_00_optim_states.pt"
        self.checkpoint_engine.save({"rank": self.rank}, f"{folder}/{asked['tag']}/{name}")

    def _copy_recovery_script(self, path: str) -> None: ...

    def _checkpoint_tag_validation(self, tag: str) -> None: ...


def savers(store: LocalStore, ranks: int, **given: Any) -> list[Saver]:
    asked: dict[str, Any] = {"attempt": "one", "keep": 1} | given
    return [Saver(store, PREFIX, rank=rank, world_size=ranks, zero_stage=2, **asked) for rank in range(ranks)]


def save_all(made: list[Saver], step: int, **given: Any) -> list[RankEngine]:
    engines = [RankEngine(rank) for rank in range(len(made))]
    for saver, engine in reversed(list(zip(made, engines, strict=True))):
        saver.save(engine, TrainingState(step=step, seed=3), **given)
    for saver in made:
        saver.wait()
    return engines


def test_a_checkpoint_holds_the_files_of_every_rank(local_store: LocalStore, tmp_path: Path) -> None:
    (engine, _) = save_all(savers(local_store, 2), 7, files={"more.json": b"[1]"})
    assert engine.asked == {"tag": step_folder(7), "save_latest": False, "exclude_frozen_parameters": False}
    commit = read_commit(local_store, PREFIX, 7)
    assert (commit.step, commit.world_size, commit.zero_stage) == (7, 2, 2)
    shards = [f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(2)]
    assert sorted(file.name for file in commit.files) == ["more.json", "state.json", *shards]
    base = f"{PREFIX}/{step_folder(7)}"
    assert {entry.key for entry in local_store.list(base)} == {
        f"{base}/{name}" for name in (COMMIT, "more.json", "state.json", *shards)
    }
    for rank in range(2):
        folder = tmp_path / str(rank)
        fetch(local_store, PREFIX, commit, rank=rank, folder=folder)
        assert sorted(path.name for path in folder.iterdir()) == ["more.json", "state.json", shards[rank]]
        assert torch.load(folder / shards[rank]) == {"rank": rank}
        assert read_state(folder, "a checkpoint") == TrainingState(step=7, seed=3)
        assert (folder / "more.json").read_bytes() == b"[1]"


def test_frozen_parameters_are_left_out_where_they_are_built_again(local_store: LocalStore) -> None:
    (engine,) = save_all(savers(local_store, 1, frozen=False), 7)
    assert engine.asked["exclude_frozen_parameters"] is True


def test_the_newest_the_best_and_every_so_many_are_kept(local_store: LocalStore) -> None:
    told: list[tuple[int, bool]] = []
    made = savers(
        local_store,
        1,
        keep=2,
        keep_every=4,
        on_commit=lambda step: told.append((step, committed(local_store, PREFIX)[0] == step)),
    )
    for step in range(1, 10):
        save_all(made, step, best=3)
    assert committed(local_store, PREFIX) == [9, 8, 4, 3]
    assert told == [(step, True) for step in range(1, 10)]


def test_the_end_of_a_process_does_not_wait_for_an_upload(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (saver,), begins, ends = savers(local_store, 1), threading.Event(), threading.Event()
    copy = Snapshot.copy

    def slow(snapshot: Snapshot) -> None:
        begins.set()
        ends.wait(HANG_SECONDS)
        copy(snapshot)

    monkeypatch.setattr(Snapshot, "copy", slow)
    saver.save(RankEngine(0), TrainingState(step=7, seed=3))
    begins.wait(HANG_SECONDS)
    (uploading,) = (thread for thread in threading.enumerate() if thread.name == "upload")
    assert uploading.daemon
    ends.set()
    saver.wait()
    assert not uploading.is_alive()
    assert committed(local_store, PREFIX) == [7]


def test_a_commit_waits_for_every_rank_of_its_own_attempt(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.training.checkpointing.saver.COMMIT_SECONDS", 0.2)
    monkeypatch.setattr("components.training.checkpointing.saver.POLL_SECONDS", 0.01)
    killed = savers(local_store, 2, attempt="killed")[1]
    killed.save(RankEngine(1), TrainingState(step=7, seed=3))
    killed.wait()
    first, second = savers(local_store, 2)
    first.save(RankEngine(0), TrainingState(step=7, seed=3))
    with pytest.raises(TrainingError, match=r"Rank 1 did not upload its part of step 7 within 0 s\."):
        first.wait()
    assert committed(local_store, PREFIX) == []
    with pytest.raises(TrainingError, match="Rank 1 did not upload"):
        first.check()
    second.check()
    monkeypatch.setattr("components.training.checkpointing.saver.COMMIT_SECONDS", 60)
    save_all(savers(local_store, 2), 7)
    assert committed(local_store, PREFIX) == [7]


def test_a_full_disk_names_the_step(local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    (saver,) = savers(local_store, 1)
    for error, said in ((OSError(28, "No space left on device"), "No space left"), (RuntimeError("full\nat"), "full.")):

        def write(_: Any, folder: Path, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("components.training.checkpointing.snapshot.Snapshot.write", write)
        (saver,) = savers(local_store, 1)
        saver.save(RankEngine(0), TrainingState(step=7, seed=3))
        with pytest.raises(TrainingError, match=f"The checkpoint of step 7 cannot be written to .*: {said}"):
            saver.wait()
