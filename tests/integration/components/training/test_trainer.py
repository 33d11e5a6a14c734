"""Whole trainings through the step, the launcher and torchrun: one undisturbed, one hurt in several ways."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load

from components.training.step import train, training_task
from mantis.artifacts.checkpoint import committed
from mantis.artifacts.layout import step_folder
from mantis.artifacts.manifest import Manifest, check_files
from mantis.hashing import sha256_bytes
from mantis.runs.step_runner import Run
from mantis.store.base import delete_tree
from tests.fixtures.training import MakeRun
from tests.helpers.committed_steps import until_committed
from tests.helpers.paths import ROOT
from tests.helpers.waiting import HANG_SECONDS

EPOCHS, STEPS, SAMPLES = 2, 84, 500  # long enough to be disturbed three times


@dataclass(frozen=True, kw_only=True)
class Trained:
    """An undisturbed training; `digest` is of weights and optimizer."""

    run: Run
    mixture: Manifest
    prefix: str
    manifest: Manifest
    digest: str
    rows: list[dict[str, Any]]


@pytest.fixture(scope="module")
def trained(make_run: MakeRun) -> Trained:
    """(run, mixture, prefix, manifest, digest of weights and optimizer, rows) of an undisturbed training."""
    run, mixture = make_run("train", {"training.epochs": str(EPOCHS)})
    manifest = train(run, mixture)
    prefix = manifest.key
    return Trained(
        run=run,
        mixture=mixture,
        prefix=prefix,
        manifest=manifest,
        digest=final_digest(run.store, prefix),
        rows=rows_of(run.store, prefix),
    )


def rows_of(store: Any, prefix: str) -> Any:
    return [json.loads(line) for line in store.get(f"{prefix}/metrics.jsonl").splitlines()]


def final_digest(store: Any, prefix: str) -> str:
    """SHA-256 over every tensor of the last checkpoint's optimizer shards: fp32 weights and both moments."""
    folder = Path(store.lance_uri(f"{prefix}/{step_folder(STEPS)}"))
    parts = []
    for path in sorted(folder.glob("*_optim_states.pt")):
        state = torch.load(path, weights_only=False)["optimizer_state_dict"]
        tensors = [*state["fp32_flat_groups"]]
        for moments in state["optimizer_state_dict"]["state"].values():
            tensors += [moments["exp_avg"], moments["exp_avg_sq"]]
        parts += [tensor.detach().numpy().tobytes() for tensor in tensors]
    assert len(parts) >= 6
    return sha256_bytes(b"".join(parts))


def test_leaves_what_the_architecture_says(trained: Trained) -> None:
    run, mixture, prefix, manifest, rows = trained.run, trained.mixture, trained.prefix, trained.manifest, trained.rows
    task = training_task(run, mixture)
    assert prefix == task.address()
    assert check_files(run.store, manifest) == []
    names = {file.name for file in manifest.files}
    assert {"probe.safetensors", "metrics.jsonl", "model/config.json", "model/tokenizer.json"} <= names
    assert committed(run.store, prefix) == [STEPS, 80]
    assert not [name for name in names if "uploaded-" in name or name == "heartbeat.json"]
    summary = manifest.summary
    assert summary["steps"] == STEPS
    assert summary["samples"] == SAMPLES
    assert summary["last_loss"] < 0.8 * summary["first_loss"]
    assert 0 < summary["goodput"] < 1
    assert [row["step"] for row in rows] == [1, *range(5, STEPS, 5), STEPS]
    assert sum(row["samples"] for row in rows) == SAMPLES
    assert sum(row["tokens"] for row in rows) == summary["tokens"]


def test_probe_holds_a_batch_and_the_trained_models_logits(trained: Trained) -> None:
    run, prefix = trained.run, trained.prefix
    probe = load(run.store.get(f"{prefix}/probe.safetensors"))
    assert probe["logits"].dtype == torch.float32
    assert probe["logits"].shape[0] == probe["targets"].shape[0] > 0
    assert probe["cu_seqlens"].tolist()[-1] == probe["input_ids"].shape[1]
    assert torch.isfinite(probe["logits"]).all()


def test_time_by_cause_sums_to_the_wall_time(trained: Trained) -> None:
    run, manifest = trained.run, trained.manifest
    accounted = sum(value for name, value in manifest.summary.items() if name.startswith("seconds_"))  # type: ignore[misc]
    record = json.loads(run.store.get(run.key("steps/train.json")))
    # The step's own seconds hold the launcher's start and end too, which are outside of the ranks.
    assert 0.8 * record["seconds"] < accounted <= record["seconds"] + 0.5


def test_goes_on_from_a_checkpoint_of_schema_version_1_bit_identical(trained: Trained) -> None:
    run, prefix, digest, rows = trained.run, trained.prefix, trained.digest, trained.rows
    old = committed(run.store, prefix)[-1]
    for entry in list(run.store.list(prefix)):
        if not entry.key.startswith(f"{prefix}/{step_folder(old)}/"):
            run.store.delete(entry.key)
    store_as_schema_1(run.store, f"{prefix}/{step_folder(old)}")

    resumed = start(run)
    out = resumed.communicate(timeout=HANG_SECONDS)[0]
    assert resumed.returncode == 0, out
    assert f"Training continues after step {old} " in out
    assert final_digest(run.store, prefix) == digest
    again = rows_of(run.store, prefix)
    assert [(row["step"], row["loss"], row["samples"]) for row in again] == [
        (row["step"], row["loss"], row["samples"]) for row in rows
    ]


def store_as_schema_1(store: Any, base: str) -> None:
    """Rewrite a checkpoint's state into the older form, and its COMMIT with the new files."""
    state = json.loads(store.get(f"{base}/state.json"))
    rows, spikes = state["callbacks"]["metric_rows"], state["callbacks"]["loss_spikes"]
    old = {name: state[name] for name in ("step", "seed", "samples", "tokens")}
    old |= {"seconds": state["callbacks"]["goodput"]["seconds"], "window": rows["window"]}
    old |= {"recent_losses": spikes["recent"], "skipped": spikes["skipped"]}
    files = {
        "state.json": json.dumps(old).encode(),
        "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in rows["rows"]).encode(),
    }
    commit = json.loads(store.get(f"{base}/COMMIT"))
    commit["files"] = [file for file in commit["files"] if file["name"] not in files]
    for name, data in files.items():
        store.put(f"{base}/{name}", data)
        commit["files"].append({"name": name, "size": len(data), "sha256": sha256_bytes(data)})
    store.put(f"{base}/COMMIT", json.dumps(commit).encode())


def test_hurt_in_every_way_it_ends_bit_identical(trained: Trained) -> None:
    run, prefix, digest, rows = trained.run, trained.prefix, trained.digest, trained.rows
    delete_tree(run.store, prefix)

    hurt = start(run)
    until_committed(run.store, prefix, step=8, process=hurt)
    rank = ranks_under(hurt)[1]
    os.kill(rank.pid, signal.SIGKILL)
    out = hurt.communicate(timeout=HANG_SECONDS)[0]
    assert hurt.returncode == 1, out
    assert "was killed by SIGKILL" in out
    assert not ranks_under(hurt)
    first = committed(run.store, prefix)[0]
    assert 8 <= first < STEPS

    stopped = start(run)
    until_committed(run.store, prefix, step=first + 1, process=stopped)
    os.kill(stopped.pid, signal.SIGTERM)
    out = stopped.communicate(timeout=HANG_SECONDS)[0]
    assert stopped.returncode != 0
    assert f"Training continues after step {first} " in out
    assert "asked to stop" in out
    second = committed(run.store, prefix)[0]
    assert first < second < STEPS

    damaged = Path(run.store.lance_uri(f"{prefix}/{step_folder(second)}/zero_pp_rank_1_mp_rank_00_optim_states.pt"))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    half = Path(run.store.lance_uri(f"{prefix}/{step_folder(second + 1)}"))
    half.mkdir()
    (half / "state.json").write_text("{}")

    last = start(run)
    out = last.communicate(timeout=HANG_SECONDS)[0]
    assert last.returncode == 0, out
    assert "CHECKPOINT DAMAGED" in out
    assert "was never committed" in out
    assert not list(half.iterdir())
    assert final_digest(run.store, prefix) == digest
    again = rows_of(run.store, prefix)
    assert [(row["step"], row["loss"], row["samples"]) for row in again] == [
        (row["step"], row["loss"], row["samples"]) for row in rows
    ]


@pytest.mark.slow
def test_a_killed_launcher_leaves_no_rank_behind_and_a_stopped_rank_is_named(trained: Trained) -> None:
    run, prefix, digest = trained.run, trained.prefix, trained.digest
    delete_tree(run.store, prefix)
    killed = start(run)
    until_committed(run.store, prefix, step=8, process=killed)
    ranks = ranks_under(killed)
    killed.kill()
    killed.wait()
    gone, alive = psutil.wait_procs(ranks, timeout=HANG_SECONDS)
    assert not alive
    assert len(gone) == 2
    killed.stdout.close()
    first = committed(run.store, prefix)[0]
    assert first < STEPS

    # How long a rank may be silent decides no result: the checkpoint's address is the same.
    patient = run.recipe.training.model_copy(update={"hang_timeout_seconds": 4.0})
    recipe = run.recipe.model_copy(update={"training": patient})
    run.store.put(run.key("recipe.yaml"), recipe.to_yaml().encode())
    hanging = start(run)
    until_committed(run.store, prefix, step=first + 1, process=hanging)
    ranks_under(hanging)[1].suspend()
    out = hanging.communicate(timeout=HANG_SECONDS)[0]
    assert hanging.returncode == 1, out
    # Both ranks are in the same part of the step if rank 1 is suspended just after it has shared its position.
    assert re.search(r"Rank 1 does not answer: last seen in step|All 2 ranks wait in step", out), out
    dump = run.store.uri(f"{prefix}/hangs/rank-00000.json")
    assert f"The last collectives of rank 0 are in {dump}." in out
    entries = json.loads(run.store.get(f"{prefix}/hangs/rank-00000.json"))["entries"]
    assert entries[-1]["profiling_name"].startswith("gloo:")
    assert entries[-1]["state"] != "completed"
    assert "attention: scaled dot product attention, segment by segment" in out
    assert not ranks_under(hanging)
    second = committed(run.store, prefix)[0]
    assert first < second < STEPS

    last = start(run)
    out = last.communicate(timeout=HANG_SECONDS)[0]
    assert last.returncode == 0, out
    assert f"Training continues after step {second} " in out
    assert final_digest(run.store, prefix) == digest


def start(run: Run) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.helpers.train_stored_run", run.store.url, run.id]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ranks_under(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The rank processes below a training, in the order of their pids."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    found = [child for child in below if "components.training" in " ".join(child.cmdline())]
    return sorted((child for child in found if child.parent().pid != process.pid), key=lambda child: child.pid)
