"""A registered model is loaded by plain MLflow, in a process that knows nothing of us, and answers as an evaluation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mantis.artifacts.manifest import Manifest
from mantis.generation.answerer import Question
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from mantis.tracking.mlflow_runs import open_tracked_run
from mantis.tracking.model_registry import register_model
from tests.fixtures.serving import ANSWER_TOKENS
from tests.helpers.paths import ROOT
from tests.helpers.waiting import HANG_SECONDS

PROGRAM = """
import json, sys
from pathlib import Path
import mlflow
import pandas

model = mlflow.pyfunc.load_model("models:/eval-test@newest", model_config={"max_tokens": int(sys.argv[1])})
rows = json.load(open("rows.json"))
for row in rows:
    row["images"] = [Path(name) for name in row["images"]]
first, rest = rows[:1], rows[1:]
print(json.dumps(model.predict(first) + model.predict(pandas.DataFrame(rest))))
"""


def test_plain_mlflow_answers_as_an_evaluation(
    eval_run: Run, findable_model: Manifest, local_store: LocalStore,
    evaluated: list[tuple[Question, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """MLflow's database is not in the store, so that the entry holds the model's whole address."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert register_model(open_tracked_run(eval_run), eval_run, findable_model) == "1"
    rows = []
    for question, _ in evaluated:
        images = [f"{question.id}-{place}.jpg" for place in range(len(question.pictures))]
        for name, picture in zip(images, question.pictures, strict=True):
            (tmp_path / name).write_bytes(picture.load())
        rows.append({"question": question.prompt, "images": images})
    assert {len(row["images"]) for row in rows} == {0, 1, 2, 3, 4}
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MANTIS_")}
    command = [sys.executable, "-c", PROGRAM, str(ANSWER_TOKENS)]
    environment |= {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG_SECONDS, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [response for _, response in evaluated]
