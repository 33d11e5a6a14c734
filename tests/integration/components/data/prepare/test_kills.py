"""Preparation that is killed at random points and started again gives what an undisturbed one gives."""

import io
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mantis.store.base import ObjectStore
from mantis.store.lance_tables import open_table
from mantis.store.opening import open_store
from tests.fixtures.data import MakeJpeg, RawFolder
from tests.helpers.paths import ROOT
from tests.helpers.waiting import HANG_SECONDS

ROWS, FRAGMENT_ROWS = 120, 7


@pytest.fixture
def raw(raw_folder: RawFolder, test_data: Path, make_jpeg: MakeJpeg) -> Path:
    """Real conversations over and over, with rows that are dropped or repaired in between."""
    folder = test_data / "mantis-chat"
    rows = json.loads((folder / "train.json").read_text())
    images = sorted({path for row in rows for path in row["images"]})
    for path in images:
        raw_folder.image(path, (folder / path).read_bytes())
    raw_folder.image("cut.jpg", make_jpeg()[:100])
    made = [{**rows[number % len(rows)], "id": f"row-{number}"} for number in range(ROWS)]
    for number in range(0, ROWS, 11):
        made[number] = raw_folder.row(f"bad-{number}", ["cut.jpg", "nowhere.jpg"][number % 2])
    for number in range(40, ROWS, 13):
        made[number]["id"] = made[number - 31]["id"]  # of another fragment
    return raw_folder.write(made)


def begin(store: str, raw: Path, workers: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.helpers.prepare_raw_subset", store, str(raw), str(FRAGMENT_ROWS)]
    process = subprocess.Popen(
        [*command, str(workers)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end_of(process: "subprocess.Popen[str]") -> tuple[dict[str, Any], str]:
    """The result and the log of a process that ends well."""
    out, err = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1]), err  # behind lines of progress, where the machine is slow


def finish(process: "subprocess.Popen[str]") -> dict[str, Any]:
    return end_of(process)[0]


def killed_at(process: "subprocess.Popen[str]", seconds: float) -> bool:
    """True where it was killed before it was done."""
    time.sleep(seconds)
    process.kill()
    process.communicate()
    return process.returncode != 0


def killed_behind_a_record(process: "subprocess.Popen[str]", url: str) -> bool:
    """Kill as soon as a fragment is recorded: the next attempt has work to continue. True as in `killed_at`."""
    while process.poll() is None and not any(open_store(url).list("made/fragments")):
        time.sleep(0.005)
    return killed_at(process, 0)


def content(url: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    store = open_store(url)
    table = open_table(store, "made/data.lance")
    named = {file.path for fragment in table.get_fragments() for file in fragment.metadata.files}
    there = {entry.key.removeprefix("made/data.lance/data/") for entry in store.list("made/data.lance/data")}
    assert there == named, "what killed writers left is gone"
    return table.to_table().to_pylist(), pq.read_table(io.BytesIO(store.get("made/ledger.parquet"))).to_pylist()


def kill_and_compare(url: str, raw: Path, kills: int, seed: int) -> int:
    """Kill at random times until `kills` have hit; each time it is done, compare and begin with an empty store.

    The first kill of each time comes behind the first record. Returns how often there was work to continue.
    """
    generator = random.Random(seed)
    store = f"{url}/undisturbed"
    undisturbed = begin(store, raw, 1)
    start = time.monotonic()
    expected = finish(undisturbed)
    seconds = time.monotonic() - start
    reference = content(store)
    assert expected["rows"] == ROWS
    assert expected["dropped"] > 10
    hits, number, went_on = 0, 0, 0
    while hits < kills:
        store = f"{url}/attempt-{number}"
        number += 1
        if killed_behind_a_record(begin(store, raw, generator.choice([1, 2])), store):
            hits, went_on = hits + 1, went_on + 1
        while hits < kills and killed_at(begin(store, raw, generator.choice([1, 2])), generator.uniform(0, seconds)):
            hits += 1
        assert finish(begin(store, raw, 2)) == expected
        assert content(store) == reference
    return went_on


def test_three_kills(raw: Path, tmp_path: Path, drawn_seed: int) -> None:
    assert kill_and_compare(tmp_path.as_uri(), raw, 3, seed=drawn_seed) > 0


@pytest.mark.slow
def test_twenty_kills(raw: Path, tmp_path: Path, drawn_seed: int) -> None:
    assert kill_and_compare(tmp_path.as_uri(), raw, 20, seed=drawn_seed) > 0


@pytest.mark.slow
def test_five_kills_in_minio(raw: Path, minio_store: ObjectStore, drawn_seed: int) -> None:
    assert kill_and_compare(minio_store.url, raw, 5, seed=drawn_seed) > 0


def test_a_recorded_fragment_is_not_done_again(raw: Path, tmp_path: Path) -> None:
    url = f"{tmp_path.as_uri()}/store"
    expected = finish(begin(url, raw, 2))
    store = open_store(url)
    records = [entry.key for entry in store.list("made/fragments")]
    assert len(records) == -(-ROWS // FRAGMENT_ROWS)
    before = {entry.key for entry in store.list("made/data.lance/data")}
    for lost in (records[3], records[10]):
        store.delete(lost)
    result, err = end_of(begin(url, raw, 1))
    assert result == expected
    done_before = ROWS - 2 * FRAGMENT_ROWS
    assert f"raw: preparation continues after {done_before:,} rows" in err
    after = {entry.key for entry in store.list("made/data.lance/data")}
    assert len(before & after) == len(before) - 2
