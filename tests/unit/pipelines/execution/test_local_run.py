"""What `mantis run` does before its first step."""

import json
import subprocess
import sys
from pathlib import Path

# A fresh process, as a person starts it: the modules of this one would hide an import that comes too early.
BEGINNING = """
import json, sys, threading

from rich.console import Console

from pipelines.execution import local_run, run_titles, supervisor

opened, loaded = threading.Event(), []

def open_in_mlflow(run):
    loaded.extend({"torch", "transformers", "deepspeed", "kfp", "mlflow", "kubernetes"} & sys.modules.keys())
    opened.set()

def run_dag(run, *given):
    assert opened.wait(60), "the first step would begin before the run is opened in MLflow"

run_titles.open_in_mlflow, supervisor.run_dag = open_in_mlflow, run_dag
run = local_run.start(
    "demo", {"training.seed": "7"}, "", sys.argv[1], Console(quiet=True), "instruction-tuning", ended=lambda run: None
)
print(json.dumps({"run": run.id, "opened": opened.is_set(), "loaded": loaded}))
"""


def test_a_run_is_opened_in_mlflow_before_heavy_imports_and_before_its_first_step(tmp_path: Path) -> None:
    """A person who watches the run in MLflow sees its parameters after seconds, however long its steps take."""
    command = [sys.executable, "-c", BEGINNING, str(tmp_path / "store")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["run"].startswith("demo-")
    assert (said["opened"], said["loaded"]) == (True, [])
