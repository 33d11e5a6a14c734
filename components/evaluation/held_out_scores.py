"""Writes loss, exact match and token F1 of the held-out rows: holdout.json of an evaluation."""

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from components.evaluation.aggregate import OVERALL
from components.evaluation.generation.answer_loss import ReferenceAnswer, answer_losses
from components.evaluation.readers.benchmark_reader import BenchmarkSample
from mantis.artifacts.held_out import HELD_OUT, HeldOutScore, held_out_scores_content
from mantis.artifacts.manifest import Manifest, Number
from mantis.artifacts.scores import Score
from mantis.generation.decoding import Decoding
from mantis.generation.generator import load_generator
from mantis.generation.workers import devices
from mantis.progress import track
from mantis.runs.step_runner import Run
from mantis.schema_versions import Form, load_rows
from mantis.store.opening import local_copy


def put_held_out_scores(
    run: Run, prefix: str, model: Manifest, decoding: Decoding, samples: Sequence[BenchmarkSample]
) -> dict[str, Number]:
    """Compute the losses, and write holdout.json below `prefix`: a row for all samples, then one per subset.

    scores.json must be there: its `official` is the token F1, its `strict` the exact match. Returns the figures of all
    samples for the manifest.
    """
    losses = _losses(run, model, decoding, samples)
    key = f"{prefix}/scores.json"
    scores = [Score.model_validate(row) for row in load_rows(Form.SCORES, "scores", run.store.get(key), key)]
    rows = [
        HeldOutScore(
            subset="" if score.overall else score.skill,
            samples=score.samples,
            missing=score.missing,
            loss=math.fsum(losses[score.skill]) / len(losses[score.skill]),
            exact_match=score.strict or 0.0,
            token_f1=score.official or 0.0,
        )
        for score in scores
    ]
    text = json.dumps(held_out_scores_content(rows), indent=1, ensure_ascii=False)
    run.store.put(f"{prefix}/{HELD_OUT}", text.encode())
    whole = rows[0]
    return {"loss": whole.loss, "exact_match": whole.exact_match, "token_f1": whole.token_f1}


def _losses(
    run: Run, model: Manifest, decoding: Decoding, samples: Sequence[BenchmarkSample]
) -> dict[str, list[float]]:
    """The loss of each sample's expected answer, by subset and for all."""
    asked = [
        ReferenceAnswer(id=each.id, prompt=each.prompt, answer=each.target.answers[0], pictures=each.pictures)
        for each in samples
    ]
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="mantis-model-") as temporary:
        folder = local_copy(run.store, model.key, Path(temporary))
        generator = load_generator(folder, run.recipe.model, decoding, devices(1)[0])
        losses = track(answer_losses(generator, asked), label="Loss of held-out rows", total=len(asked), unit="samples")
        for sample, loss in zip(samples, losses, strict=True):
            found[OVERALL].append(loss)
            found[sample.skill].append(loss)
    return found
