"""Learning rates per part, and adapters beside whole parts: steps, checkpoints, layouts, and the merged model."""

import json
from pathlib import Path
from typing import Any

import pytest

from mantis.models.registry import family_names
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
