import json
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed import HashStore  # type: ignore[attr-defined]

from components.training.engine import flight_recorder
from components.training.engine.flight_recorder import dump_of_nccl, leave_dump, record_collectives
from mantis.errors import StoreError
from mantis.store.local import LocalStore
from tests.helpers.waiting import HANG_SECONDS

CPU = torch.device("cpu")
NAMES = ("TORCH_FR_BUFFER_SIZE", "TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DUMP_ON_TIMEOUT")


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One rank that took part in a collective."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that the end of the test removes the new value
        monkeypatch.delenv(name)
    record_collectives()
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    dist.all_reduce(torch.ones(7))
    yield
    dist.destroy_process_group()


def entries(text: bytes) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(text)["entries"]
    return found


@pytest.mark.usefixtures("recording")
def test_the_last_collectives_lie_beside_the_checkpoints(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    where = leave_dump(store, "checkpoints/x", rank=3, device=CPU)
    assert where == store.uri("checkpoints/x/hangs/rank-00003.json")
    last = entries(store.get("checkpoints/x/hangs/rank-00003.json"))[-1]
    assert (last["profiling_name"], last["input_sizes"]) == ("gloo:all_reduce", [[7]])
    dump = f"{tempfile.gettempdir()}/mantis-{os.getpid()}-collectives-rank-"  # another training has another process
    assert {name: os.environ[name] for name in NAMES} == {
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_FR_DUMP_TEMP_FILE": dump,
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    }
    assert dump_of_nccl(3) == f"{dump}3"


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize("hangs", [False, True])
def test_they_lie_in_a_file_here_if_the_store_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    released = threading.Event()

    class Away(LocalStore):
        def put(self, key: str, data: bytes) -> None:
            if hangs:
                released.wait(HANG_SECONDS)
            raise StoreError("It is away.")

    monkeypatch.setattr(flight_recorder, "STORE_SECONDS", 0.2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    away = Away(tmp_path / "store")
    places = {leave_dump(away, prefix, rank=0, device=CPU) for prefix in ("checkpoints/x", "checkpoints/y")}
    released.set()
    assert len(places) == 2  # trainings on one machine leave each other's files alone
    for where in places:
        assert entries(Path(where).read_bytes())[-1]["profiling_name"] == "gloo:all_reduce"


def test_settings_of_the_user_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "5")
    record_collectives()
    assert {os.environ[name] for name in NAMES} == {"5"}
