"""One rank resumes: from the newest whole checkpoint, with the groups that it was saved with."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from components.training.checkpointing.resume import restore
from components.training.checkpointing.saver import Saver, TrainingState
from components.training.engine.deepspeed_engine import DistributedContext
from components.training.engine.parameter_groups import ParameterGroup
from mantis.artifacts.checkpoint import committed, read_commit
from mantis.artifacts.layout import COMMIT, commit_key, step_folder
from mantis.artifacts.manifest import File
from mantis.errors import IntegrityError, TrainingError
from mantis.hashing import sha256_bytes
from mantis.store.local import LocalStore
from tests.helpers.planted_code import Planted

PREFIX = "checkpoints/x"
SHARD = "zero_pp_rank_0_mp_rank_00_optim_states.pt"
GROUPS = (ParameterGroup(parts=("text",), learning_rate=1e-3, weight_decay=0.1, parameters=("a", "b")),)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DistributedContext]:
    """A group of one rank."""
    meeting = tmp_path_factory.mktemp("meeting") / "file"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield DistributedContext(rank=0, world_size=1, device=torch.device("cpu"))
    dist.destroy_process_group()


class Engine:
    """Saves and loads one file, as DeepSpeed's engine does through its checkpoint engine."""

    def __init__(self, content: Any = None) -> None:
        self.content = content
        self.checkpoint_engine: Any = None
        self.loaded: list[Any] = []
        self.asked: dict[str, Any] = {}
        self.folder = Path()

    def save_checkpoint(self, folder: str, **asked: Any) -> None:
        self.checkpoint_engine.save(self.content, f"{folder}/{SHARD}")

    def load_checkpoint(self, folder: str, **asked: Any) -> None:
        self.asked, self.folder = asked, Path(folder)
        self.loaded.append(self.checkpoint_engine.load(str(Path(folder) / asked["tag"] / SHARD)))

    def _copy_recovery_script(self, path: str) -> None: ...

    def _checkpoint_tag_validation(self, tag: str) -> None: ...


def save(store: LocalStore, *steps: int, groups: Any = GROUPS) -> None:
    saver = Saver(store, PREFIX, rank=0, world_size=1, zero_stage=2, attempt="one", keep=9)
    for step in steps:
        engine = Engine({"step": torch.tensor(step)})
        saver.save(engine, TrainingState(step=step, seed=5, samples=6 * step, groups=groups))
        saver.wait()


def resume(store: LocalStore, alone: DistributedContext, engine: Engine, **given: Any) -> TrainingState | None:
    asked: dict[str, Any] = {"zero_stage": 2, "groups": GROUPS} | given
    return restore(engine, store, PREFIX, alone, **asked)


def damage(store: LocalStore, step: int, name: str = SHARD, data: bytes | None = b"changed") -> None:
    key = f"{PREFIX}/{step_folder(step)}/{name}"
    store.delete(key) if data is None else store.put(key, data)


def test_a_training_that_has_not_begun_has_nothing_to_resume(
    local_store: LocalStore, alone: DistributedContext
) -> None:
    engine = Engine()
    assert resume(local_store, alone, engine) is None
    assert engine.loaded == []


def test_the_newest_checkpoint_is_loaded(local_store: LocalStore, alone: DistributedContext) -> None:
    save(local_store, 3, 12, 5)
    local_store.put(f"{PREFIX}/{step_folder(20)}/{SHARD}", b"never committed")
    for frozen in (True, False):
        engine = Engine()
        state = resume(local_store, alone, engine, frozen=frozen)
        assert (state.step, state.seed, state.samples, state.groups) == (12, 5, 72, GROUPS)
        assert [int(one["step"]) for one in engine.loaded] == [12]
        assert engine.asked == {"tag": step_folder(12), "load_module_strict": frozen}
        assert engine.checkpoint_engine is None, "the engine has its own back"
    assert committed(local_store, PREFIX) == [12, 5, 3]
    assert not list(local_store.list(f"{PREFIX}/{step_folder(20)}"))


def test_ranks_wait_for_each_other_before_their_shared_folder_is_deleted(
    local_store: LocalStore, alone: DistributedContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(local_store, 5)
    engine = Engine()
    waits: list[tuple[int, bool]] = []  # at each barrier: files loaded before, and whether their folder is there
    monkeypatch.setattr(dist, "barrier", lambda: waits.append((len(engine.loaded), engine.folder.exists())))
    assert resume(local_store, alone, engine) is not None
    assert waits == [(0, True), (1, True)]
    assert not engine.folder.exists()


@pytest.mark.parametrize(("name", "data"), [(SHARD, b"changed"), (SHARD, None), (COMMIT, b"{"), ("state.json", b"{}")])
def test_a_damaged_checkpoint_is_left_for_the_one_before_and_deleted(
    local_store: LocalStore, alone: DistributedContext, caplog: pytest.LogCaptureFixture, name: str, data: bytes | None
) -> None:
    save(local_store, 3, 5, 12)
    damage(local_store, 12, name, data)
    engine = Engine()
    assert resume(local_store, alone, engine).step == 5
    assert [int(one["step"]) for one in engine.loaded] == [5]
    assert f"uses the one before {step_folder(12)}" in caplog.text
    assert committed(local_store, PREFIX) == [5, 3]
    assert not list(local_store.list(f"{PREFIX}/{step_folder(12)}"))


def test_without_a_whole_checkpoint_training_does_not_begin_anew(
    local_store: LocalStore, alone: DistributedContext
) -> None:
    save(local_store, 3, 5)
    damage(local_store, 3)
    damage(local_store, 5)
    with pytest.raises(TrainingError, match=r"None of the 2 checkpoints under .*/checkpoints/x is whole"):
        resume(local_store, alone, Engine())
    assert committed(local_store, PREFIX) == [5, 3]


def test_a_file_that_wants_to_run_code_is_refused(
    local_store: LocalStore, alone: DistributedContext, tmp_path: Path
) -> None:
    save(local_store, 5)
    file = io.BytesIO()
    torch.save({"planted": Planted(tmp_path / "it-was-run")}, file)
    local_store.put(f"{PREFIX}/{step_folder(5)}/{SHARD}", file.getvalue())
    whole = read_commit(local_store, PREFIX, 5)
    planted = File(name=SHARD, size=len(file.getvalue()), sha256=sha256_bytes(file.getvalue()))
    files = tuple(planted if one.name == SHARD else one for one in whole.files)
    local_store.put(commit_key(PREFIX, 5), whole.model_copy(update={"files": files}).model_dump_json().encode())
    engine = Engine()
    with pytest.raises(IntegrityError, match=r"wants posix\.system"):
        resume(local_store, alone, engine)
    assert engine.loaded == []
    assert not (tmp_path / "it-was-run").exists()


def test_other_parameter_groups_are_refused(local_store: LocalStore, alone: DistributedContext) -> None:
    save(local_store, 5)
    other = (GROUPS[0].model_copy(update={"learning_rate": 2e-3}),)
    with pytest.raises(TrainingError, match=f"{step_folder(5)} was trained with other parameter groups"):
        resume(local_store, alone, Engine(), groups=other)
    assert resume(local_store, alone, Engine()).groups == GROUPS


def test_a_checkpoint_from_before_groups_takes_those_of_the_training(
    local_store: LocalStore, alone: DistributedContext
) -> None:
    save(local_store, 5, groups=None)
    assert resume(local_store, alone, Engine()).groups == GROUPS


def test_another_layout_is_resharded(
    local_store: LocalStore,
    alone: DistributedContext,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    save(local_store, 5)
    asked: list[Any] = []
    module = "components.training.checkpointing.resume"
    monkeypatch.setattr(f"{module}.Shards", lambda folder, **given: asked.append((sorted(folder.iterdir()), given)))
    monkeypatch.setattr(f"{module}.load_resharded", lambda engine, shards, **given: asked.append(given))
    engine = Engine()
    assert resume(local_store, alone, engine, zero_stage=3, frozen=False).step == 5
    (files, shards), loaded = asked
    assert [path.name for path in files] == ["state.json", SHARD]
    assert (shards, loaded) == ({"world_size": 1, "zero_stage": 2}, {"rank": 0, "frozen": False})
    assert engine.loaded == []
    assert "1 ranks with ZeRO-2 saved step 5: it is resharded for 1 ranks with ZeRO-3" in caplog.text
