"""Learning rates per part, and adapters beside whole parts: steps, checkpoints, layouts, and the merged model."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForImageTextToText

from components.conversion.step import convert
from components.training.step import train
from mantis.artifacts.layout import step_folder
from mantis.models.registry import family_names
from mantis.tracking.mlflow_runs import open_tracked_run
from tests.fixtures.training import MakeRun, Torchrun

VARIANTS: list[dict[str, Any]] = [
    {"name": "parts-3-2", "mixed": False, "save": 3, "resume": 2},
    {"name": "mixed-2-3", "mixed": True, "save": 2, "resume": 3},
    {"name": "parts-2-2", "mixed": False, "save": 2, "resume": 2},
    {"name": "mixed-3-3", "mixed": True, "save": 3, "resume": 3},
    {"name": "parts-2-3", "mixed": False, "save": 2, "resume": 3},
    {"name": "mixed-3-2", "mixed": True, "save": 3, "resume": 2},
]


@pytest.mark.parametrize(
    ("name", "variants", "ranks"),
    [
        pytest.param("llava-clip", VARIANTS[:2], 1, id="llava-clip on one rank"),
        *(
            pytest.param(name, VARIANTS, 3, id=f"{name} on three ranks", marks=pytest.mark.slow)
            for name in family_names()
        ),
    ],
)
def test_steps_equal_plain_torch_also_after_a_resume_on_other_ranks(
    make_run: MakeRun, torchrun: Torchrun, tmp_path: Path, name: str, variants: Any, ranks: int
) -> None:
    """Gradients to 1e-5 for the same weights; each part moves by its own learning rate and weight decay."""
    run, _ = make_run(name, {"model.family": name})
    for mode, world in (("save", 2), ("resume", ranks)):
        out = tmp_path / mode
        done = torchrun("compare_parts_step", world, mode, tmp_path, json.dumps(variants), run.store.url, out, name)
        assert done.returncode == 0, done.stderr[-3000:]
        rows = json.loads(out.with_name(f"{mode}.0").read_text())[name]
        assert len(rows) == len(variants)
        for variant, (first, *_) in zip(variants, rows, strict=True):
            what = (mode, variant["name"])
            assert first["loss"] == pytest.approx(first["expected_loss"], rel=1e-5), what
            assert first["gradient_error"] < 1e-5, what
            assert first["norm"] == pytest.approx(first["expected_norm"], rel=1e-5), what
            assert max(first["update_error"].values()) < 0.02, (what, first["update_error"])


@pytest.mark.slow
def test_a_mixed_training_logs_its_rates_and_becomes_a_model(make_run: MakeRun) -> None:
    changes = {
        "training.train": "[projector, text]",
        "training.adapter": "{kind: lora, rslora: true, whole: [projector], modules_to_save: [embed_tokens, lm_head]}",
        "training.parts": "{projector: {learning_rate: 4.0e-3}}",
        "training.max_steps": "12",
        "training.log_every": "1",
    }
    run, mixture = make_run("mixed", changes)
    checkpoint = train(run, mixture)
    assert checkpoint.summary["last_loss"] < checkpoint.summary["first_loss"]
    rows = [json.loads(line) for line in run.store.get(f"{checkpoint.key}/metrics.jsonl").splitlines()]
    assert [row["learning_rate_text"] for row in rows] == [row["learning_rate"] for row in rows]
    assert [row["learning_rate_projector"] for row in rows] == pytest.approx([2 * row["learning_rate"] for row in rows])
    tracked = open_tracked_run(run)
    sent = tracked.client.get_metric_history(tracked.id, "train/learning_rate_projector")
    assert [metric.value for metric in sent] == [row["learning_rate_projector"] for row in rows]
    state = json.loads(run.store.get(f"{checkpoint.key}/{step_folder(12)}/state.json"))
    assert [group["parts"] for group in state["groups"]] == [["projector"], ["text"]]

    folder = run.store.lance_uri(convert(run, checkpoint).key)
    _, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
