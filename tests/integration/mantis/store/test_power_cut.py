"""A power cut after any call of a step, a save or a preparation leaves nothing that counts and is not whole."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from components.data.prepare.fragments import read_fragments
from components.data.step import prepare
from components.training.checkpointing.saver import Saver, TrainingState, fetch
from components.training.checkpointing.training_summary import is_whole, write_summary
from mantis.artifacts.checkpoint import committed, read_commit
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import check_files, read_manifest
from mantis.errors import StoreError
from mantis.runs.records import State, read_record
from mantis.runs.step_runner import Run, StepSpec, run_step
from mantis.store.lance_tables import fragment_keys
from mantis.store.local import LocalStore
from tests.fixtures.data import MakeJpeg, RawFolder, RunOn
from tests.helpers.power_cut import Disk

Watch = Callable[[Callable[[LocalStore], object]], Disk]


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Check every power cut from now on, with what it leaves of `disk/store`."""
    made: list[Disk] = []

    def begin(check: Callable[[LocalStore], object]) -> Disk:
        (tmp_path / "disk").mkdir(exist_ok=True)
        disk = Disk(
            tmp_path / "disk", monkeypatch, lambda left: check(LocalStore(left / "store")), scratch=tmp_path / "cuts"
        )
        made.append(disk)
        return disk

    yield begin
    for disk in made:
        disk.close()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store that is not there yet."""
    return LocalStore(tmp_path / "disk" / "store")


def test_a_manifest_survives_only_with_all_of_its_objects(
    watch: Watch, store: LocalStore, run: Run, tmp_path: Path
) -> None:
    task = StepSpec(step="train", kind=ArtifactKind.DATASET, revision=1, config={}, inputs={}, parts={"subset": "x"})
    key, seen = task.address(), set()

    def check(left: LocalStore) -> None:
        manifest, record = read_manifest(left, key), read_record(left, run.id, "train")
        seen.add((manifest is not None, record.state if record else None))
        assert manifest is None or check_files(left, manifest) == []
        assert manifest is not None or record is None or record.state is State.STARTED

    def work(prefix: str) -> dict[str, Any]:
        store.put(f"{prefix}/a/object", b"by a step")
        (tmp_path / "file").write_bytes(b"from a file")
        store.put_file(f"{prefix}/a/file", tmp_path / "file")
        folder = Path(store.lance_uri(f"{prefix}/data.lance/data"))
        folder.mkdir(parents=True)
        (folder / "0.lance").write_bytes(b"as Lance writes")
        return {}

    disk = watch(check)
    manifest = run_step(Run(id=run.id, store=store, recipe=run.recipe), task, work)
    left = LocalStore(disk.after_a_cut(names_are_early=False) / "store")
    assert read_manifest(left, key) == manifest
    assert seen == {(False, None), (False, State.STARTED), (True, State.STARTED), (True, State.DONE)}
    files = [name for name in disk.synced if (disk.folder / name).is_file() and key in name]
    assert {disk.synced[name] for name in files} == {1}, "each file is synced once in a commit"
    assert len(files) == 3


class Engine:
    """Saves one tensor through DeepSpeed's checkpoint engine."""

    def __init__(self, rank: int) -> None:
        self.rank, self.checkpoint_engine = rank, SimpleNamespace()

    def save_checkpoint(self, folder: str, *, tag: str, **_: Any) -> None:
        name = f"zero_pp_rank_{self.rank}_mp_rank_00_optim_states.pt"
        self.checkpoint_engine.save({"flat": torch.arange(9.0) + self.rank}, f"{folder}/{tag}/{name}")


def test_a_checkpoint_survives_only_with_the_files_of_all_ranks(
    watch: Watch, store: LocalStore, tmp_path: Path
) -> None:
    found: list[list[int]] = []

    def check(left: LocalStore) -> None:
        found.append(committed(left, "checkpoints/x"))
        for step in found[-1]:
            commit = read_commit(left, "checkpoints/x", step)
            assert len(commit.files) == 3
            fetch(left, "checkpoints/x", commit, rank=None, folder=tmp_path / f"fetched-{len(found)}")

    watch(check)
    for rank in (1, 0):  # the first rank commits what the other one has written
        saver = Saver(store, "checkpoints/x", rank=rank, world_size=2, zero_stage=3, attempt="a", keep=2)
        saver.save(Engine(rank), TrainingState(step=7, seed=1))
        saver.wait()
    assert found[-1] == [7]
    assert [] in found


def test_a_training_is_complete_only_with_all_of_its_files(watch: Watch, store: LocalStore) -> None:
    complete: list[bool] = []

    def check(left: LocalStore) -> None:
        complete.append(is_whole(left, "checkpoints/x"))
        if complete[-1]:
            assert left.get("checkpoints/x/model/config.json") == left.get("checkpoints/x/probe") == b"whole"

    watch(check)
    for name in ("model/config.json", "probe"):
        store.put(f"checkpoints/x/{name}", b"whole")
    write_summary(store, "checkpoints/x", {})
    assert {complete[0], complete[-1]} == {False, True}


def test_a_recorded_fragment_survives_only_with_its_rows(
    watch: Watch, raw_folder: RawFolder, make_jpeg: MakeJpeg, run_on: RunOn, store: LocalStore, tmp_path: Path
) -> None:
    raw_folder.image("a.jpg", make_jpeg())
    run = run_on(raw_folder.write([raw_folder.row(f"row-{number}", "a.jpg") for number in range(20)]))
    records: list[int] = []

    def check(left: LocalStore) -> None:
        recorded = [entry.key for entry in left.list("datasets") if "/fragments/" in entry.key]
        for prefix in {key.rpartition("/fragments/")[0] for key in recorded}:
            fragments = read_fragments(left, prefix)
            records.append(len(fragments))
            for fragment in fragments.values():
                for key in fragment_keys(f"{prefix}/data.lance", fragment.table):
                    assert len(left.get(key)) == store.stat(key).size

    watch(check)
    prepare(Run(id=run.id, store=store, recipe=run.recipe), "raw")
    assert max(records) > 0


def test_the_folders_above_a_new_store_survive(tmp_path: Path, watch: Watch) -> None:
    disk = watch(lambda left: None)
    store = LocalStore(disk.folder / "new" / "deeper" / "store")
    store.commit("a/b/object", b"bytes", after=())
    left = disk.after_a_cut(names_are_early=False)
    assert (left / "new" / "deeper" / "store" / "a" / "b" / "object").read_bytes() == b"bytes"


@pytest.mark.parametrize(
    ("number", "kind", "raises"),
    [(errno.EINVAL, "folder", False), (errno.ENOTSUP, "folder", False), (errno.EIO, "folder", True),
     (errno.EINVAL, "file", True), (errno.EIO, "file", True)],
)  # fmt: skip
def test_a_disk_that_cannot_sync_is_an_error_except_for_names_of_network_disks(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int, kind: str, raises: bool
) -> None:
    local_store.put("a/data", b"1")

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir() == (kind == "folder"):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if raises:
        with pytest.raises(StoreError, match=r"cannot be (written|made durable)"):
            local_store.commit("a/MANIFEST", b"2", after=["a/data"])
    else:
        local_store.commit("a/MANIFEST", b"2", after=["a/data"])
        assert local_store.get("a/MANIFEST") == b"2"


@pytest.mark.parametrize("kind", ["local_store", "cloud_memory"])
def test_no_store_checks_that_the_objects_before_a_commit_are_there(kind: str, request: pytest.FixtureRequest) -> None:
    store = request.getfixturevalue(kind)
    store.commit("a/MANIFEST", b"2", after=["a/missing"])
    assert store.get("a/MANIFEST") == b"2"
