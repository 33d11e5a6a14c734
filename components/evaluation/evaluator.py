"""Evaluates one model on one benchmark: generates the responses, scores them, and stores both."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.evaluation.aggregate import marked_as_sample, score_rows, summarize
from components.evaluation.benchmarks.benchmark_catalog import Benchmark
from components.evaluation.benchmarks.image_merge import merged
from components.evaluation.controls import Condition, shown
from components.evaluation.gallery import gallery
from components.evaluation.readers.benchmark_reader import BenchmarkSample, Missing
from components.evaluation.scoring.score_response import score_response
from mantis.artifacts.manifest import Number
from mantis.artifacts.responses import Response, put_responses
from mantis.config.evaluation_settings import EvaluationSettings
from mantis.errors import EvaluationError
from mantis.generation.answerer import REFUSED, AnsweringModel, Question
from mantis.generation.cache.response_cache import Answered, ResponseCache
from mantis.generation.sample_images import Picture
from mantis.progress import Progress
from mantis.runs.step_runner import Run
from mantis.schema_versions import Form, versioned

logger = logging.getLogger(__name__)

View = dict[int, tuple[Picture, ...]]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One model on one benchmark."""

    run: Run
    benchmark: Benchmark
    samples: Sequence[BenchmarkSample]
    missing: Sequence[Missing]
    drawn_from: Mapping[str, int] | None = None  # if `samples` are a random part: all samples of each skill
    model: AnsweringModel

    def make(self, prefix: str) -> dict[str, Number]:
        """Write responses/, scores.json and gallery.json under `prefix`. Returns the numbers for the manifest.

        A question that has a response in the store is not asked again.
        """
        asked: list[Condition] = ["actual", *self._settings.controls]
        views = {name: shown(self.samples, name, seed=self.run.recipe.seed) for name in asked}
        answered, responses = self._answers(views)
        for name in views:
            put_responses(self.run.store, prefix, name, responses[name])
        given = {response.id for response in responses["actual"]}
        refused = [
            Missing(id=sample.id, skill=sample.skill, reason=REFUSED)
            for sample in self.samples
            if sample.id not in given
        ]
        if not given:
            raise EvaluationError(
                f"The model's service refuses all {len(refused)} samples of {self.benchmark.name}.",
                remedy="The warnings above give its reasons.",
            )
        conditions = {
            "scoring": self._settings.scoring,
            "prompt": self.benchmark.resolved.name,
            "decoding": self.benchmark.resolved.decoding.shown,
            "layout": self._settings.layout,
        }
        missing, seed = [*self.missing, *refused], self.run.recipe.seed
        rows = score_rows(self.benchmark, responses, missing, seed=seed, conditions=conditions)
        if self.drawn_from is not None:
            rows = [marked_as_sample(row, self.drawn_from) for row in rows]
        self._put(f"{prefix}/scores.json", versioned(Form.SCORES, {"scores": [row.stored() for row in rows]}))
        shown_answers = gallery(
            self.benchmark, [sample for sample in self.samples if sample.id in given], responses["actual"]
        )
        self._put(f"{prefix}/gallery.json", versioned(Form.GALLERY, {"answers": shown_answers}))
        for row in rows:
            share, samples, chance = f"{row.accuracy:.1%}", f"{row.samples:,}", f"{row.chance:.0%}"
            logger.info("%s: %s of %s samples are right (chance: %s)", row.label, share, samples, chance)
        cost = {"answers_generated": answered.generated, "answer_seconds": round(answered.seconds, 3)}
        return summarize(rows) | cost

    @property
    def _settings(self) -> EvaluationSettings:
        return self.run.recipe.evaluation

    def _put(self, key: str, value: object) -> None:
        self.run.store.put(key, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode())

    def _answers(self, views: Mapping[Condition, View]) -> tuple[Answered, dict[Condition, list[Response]]]:
        """Ask all conditions together. So they share batches, and with them the features of their images."""
        asked = [(name, place, pictures) for name, view in views.items() for place, pictures in view.items()]
        questions = [
            question_of(
                self.samples[place],
                pictures,
                self._settings,
                # Without its images a model may answer nothing or ramble. Its score would fall below chance and prove
                # nothing. So a control must choose a valid answer. The sample itself may be answered with any text.
                allowed=() if name == "actual" else self.samples[place].valid_answers(self.benchmark),
            )
            for name, place, pictures in asked
        ]
        progress = Progress(label=self.benchmark.title, total=len(questions), unit="answers")
        asking = ResponseCache(
            store=self.run.store,
            settings=self._settings,
            questions=self.benchmark.name,
            title=self.benchmark.title,
            decoding=self.benchmark.resolved.decoding,
            model=self.model,
        )
        answered = asking.responses(questions, progress.advance)
        responses: dict[Condition, list[Response]] = {name: [] for name in views}
        for (name, place, pictures), text in zip(asked, answered.responses, strict=True):
            if text is not None:
                responses[name].append(self._judge(self.samples[place], pictures, text))
        return answered, responses

    def _judge(self, sample: BenchmarkSample, pictures: tuple[Picture, ...], text: str) -> Response:
        judged = score_response(text, sample.target, self.benchmark.metric)
        return Response(
            id=sample.id,
            skill=sample.skill,
            unit=sample.unit,
            question=sample.question,
            images=[{"path": picture.path, "sha256": picture.sha256} for picture in pictures],
            response=text,
            answer=sample.answer,
            target=sample.target.to_json(),
            cluster=sample.cluster,
            **judged.stored(self._settings.scoring),
        )


def question_of(
    sample: BenchmarkSample,
    pictures: tuple[Picture, ...],
    settings: EvaluationSettings,
    *,
    allowed: tuple[str, ...] = (),
) -> Question:
    """Make the question about `pictures` that a model is asked for a sample."""
    prompt = sample.prompt
    if settings.layout == "merge":
        prompt, pictures = merged(prompt, pictures)
    return Question(id=sample.id, prompt=prompt, pictures=pictures, allowed=allowed)
