"""What the held-out losses decide: the best step, the end of training, and what a resumed training still knows."""

import json
import math
from typing import Any

import pytest

from components.conversion.zero.checkpoint_reader import step_to_convert
from components.training.callbacks.callback import FinishedStep
from components.training.callbacks.held_out_loss import HeldOutLoss, HeldOutPoint
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import File, Manifest, provenance
from mantis.errors import ConversionError


class Losses:
    """Stands for the evaluator: returns one loss after another."""

    samples = 3

    def __init__(self, *losses: float) -> None:
        self.left = list(losses)

    def loss(self, announce: Any) -> float:
        announce("part 1")
        return self.left.pop(0)


class Loop:
    """Stands for the trainer."""

    steps = 10
    state: Any = None

    def __init__(self) -> None:
        self.announced: list[Any] = []

    def announce(self, *event: Any) -> None:
        self.announced.append(event)


def evaluated(*losses: float, **settings: Any) -> HeldOutLoss:
    """After one evaluation at every second step."""
    evaluator: Any = Losses(*losses)
    given: dict[str, Any] = {"every": 2, "keeps_best": True, "patience": None} | settings
    held_out = HeldOutLoss(evaluator=evaluator, probe=dict, is_main=True, **given)
    held_out.on_start(Loop())
    figures: Any = None
    for step in range(1, 2 * len(losses) + 1):
        held_out.after_step(FinishedStep(step=step, figures=figures, row={"step": step}))
    return held_out


def test_the_best_step_is_the_first_of_the_lowest_loss() -> None:
    assert evaluated(3.0, 1.0, 2.0, 1.0).best == HeldOutPoint(4, 1.0)
    assert evaluated(math.nan, 2.0, math.inf).best_to_keep == 4
    assert evaluated(3.0, 1.0, keeps_best=False).best_to_keep is None
    assert evaluated(math.nan).best_to_keep is None


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ((3.0, 2.0, 1.0), False),
        ((3.0, 4.0), False),
        ((3.0, 4.0, 3.5), True),
        ((3.0, 3.0, 3.0), True),
        ((3.0, 4.0, 2.0, 5.0), False),
        ((math.nan, math.nan), True),
    ],
)
def test_training_stops_after_that_many_evaluations_without_a_lower_loss(losses: Any, stops: bool) -> None:
    assert evaluated(*losses, patience=2).stops is stops
    assert not evaluated(*losses).stops


def test_a_resumed_training_decides_the_same() -> None:
    before = evaluated(3.0, 4.0, 3.5, patience=2)
    after = HeldOutLoss(evaluator=before.evaluator, probe=dict, is_main=True, every=2, keeps_best=True, patience=2)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert (after.points, after.best, after.stops) == (before.points, before.best, True)


def test_a_loss_joins_the_row_of_its_own_step_or_none() -> None:
    held_out = evaluated()
    held_out.evaluator.left = [1.0, 2.0, 3.0]  # type: ignore[attr-defined]
    figures: Any = None
    assert held_out.after_step(FinishedStep(step=1, figures=figures, row={"step": 1})) == {}
    assert held_out.after_step(FinishedStep(step=2, figures=figures, row={"step": 2})) == {"held_out_loss": 1.0}
    assert held_out.after_step(FinishedStep(step=4, figures=figures, row=None)) == {}
    assert held_out.points == [HeldOutPoint(2, 1.0), HeldOutPoint(4, 2.0)]
    assert held_out.trainer.announced[:2] == [("evaluate", 2, "part 1"), ("other", 2)]  # type: ignore[attr-defined]


def checkpoint(**summary: Any) -> Manifest:
    files = tuple(File(name=f"step-{step:08d}/COMMIT", size=1, sha256="0" * 64) for step in (4, 8))
    made = provenance("train", 1, {}, run="r")
    return Manifest(
        kind=ArtifactKind.CHECKPOINT, key="checkpoints/x", fingerprint="x", made_by=made, files=files, summary=summary
    )


def test_conversion_takes_the_step_that_the_recipe_says() -> None:
    assert step_to_convert(checkpoint(best_step=4), "last") == 8
    assert step_to_convert(checkpoint(best_step=4), "best") == 4
    with pytest.raises(ConversionError, match=r"no checkpoint of its best step 6; it has those of 4, 8.*keep_best"):
        step_to_convert(checkpoint(best_step=6), "best")
    with pytest.raises(ConversionError, match="no checkpoint of its best step; it"):
        step_to_convert(checkpoint(), "best")
