"""Ask, store, score: what the evaluation step does where no result is there yet."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from components.core.artifacts import Manifest, Number
from components.core.progress import Progress, say
from components.core.settings import EvaluationSettings
from components.core.steps import Run
from components.core.store import key_of
from components.evaluation.benchmarks import Benchmark, Decoding
from components.evaluation.conditions import Condition, shown
from components.evaluation.gallery import gallery
from components.evaluation.generate import Answerer, Question, load_answerer
from components.evaluation.reader import Picture, Sample
from components.evaluation.responses import Response, parts, stored_or_made
from components.evaluation.scores import score_rows, summarize
from components.evaluation.scoring import score
from components.evaluation.source import local_copy


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One model on one benchmark."""

    run: Run
    benchmark: Benchmark
    decoding: Decoding
    samples: Sequence[Sample]
    model: Manifest

    def make(self, prefix: str) -> dict[str, Number]:
        """Put responses/, scores.json and gallery.json under `prefix`; responses that are there are kept."""
        conditions: list[Condition] = ["actual", *self._settings.controls]
        views = {name: shown(self.samples, name, seed=self.run.recipe.seed) for name in conditions}
        total = sum(len(view) for view in views.values())
        progress = Progress(label=self.benchmark.title, total=total, unit="answers")
        responses = {name: self._answers(prefix, name, view, progress) for name, view in views.items()}
        rows = score_rows(self.benchmark, responses, seed=self.run.recipe.seed)
        self._put(f"{prefix}/scores.json", rows)
        self._put(f"{prefix}/gallery.json", gallery(self.benchmark, self.samples, responses["actual"]))
        for row in rows:
            say(f"{row['label']}: {row['accuracy']:.1%} of {row['samples']:,} (chance {row['chance']:.0%})")
        return summarize(rows)

    @property
    def _settings(self) -> EvaluationSettings:
        return self.run.recipe.evaluation

    def _put(self, key: str, value: object) -> None:
        self.run.store.put(key, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode())

    @cached_property
    def _answerer(self) -> Answerer:
        with tempfile.TemporaryDirectory(prefix="mantis-model-") as temporary:
            folder = local_copy(self.run.store, key_of(self.run.store, self.model.uri), Path(temporary))
            return load_answerer(folder, self.run.recipe.model, self.decoding)

    def _answers(
        self, prefix: str, condition: Condition, view: dict[int, tuple[Picture, ...]], progress: Progress
    ) -> list[Response]:
        answers: list[Response] = []
        for part in parts(prefix, condition, list(view)):
            ids = [self.samples[place].id for place in part.places]
            before = progress.done
            made = stored_or_made(self.run.store, part, ids, self._maker(condition, view, part.places, progress))
            progress.advance(len(made) - (progress.done - before))  # those that were there already
            answers += made
        return answers

    def _maker(
        self, condition: Condition, view: dict[int, tuple[Picture, ...]], places: list[int], progress: Progress
    ) -> Callable[[], list[Response]]:
        def make() -> list[Response]:
            questions = [self._question(self.samples[place], view[place], condition) for place in places]
            tokens = self._settings.batch_tokens
            texts = self._answerer.answer(questions, batch_tokens=tokens, done=progress.advance)
            return [
                self._judge(self.samples[place], view[place], text) for place, text in zip(places, texts, strict=True)
            ]

        return make

    def _question(self, sample: Sample, pictures: tuple[Picture, ...], condition: Condition) -> Question:
        # Without its pictures a model may fall silent or ramble: it would be below chance and prove nothing. So a
        # control has to choose among the valid answers; the sample as it is may be answered with anything.
        allowed = () if condition == "actual" else sample.valid_answers(self.benchmark)
        return Question(id=sample.id, prompt=sample.prompt, pictures=pictures, allowed=allowed)

    def _judge(self, sample: Sample, pictures: tuple[Picture, ...], text: str) -> Response:
        kind, options, answer = self.benchmark.answer_type, sample.options, sample.answer
        strict = score(text, answer=answer, options=options, answer_type=kind, scoring="strict")
        named = score(text, answer=answer, options=options, answer_type=kind, scoring=self._settings.scoring)
        return Response(
            id=sample.id,
            skill=sample.skill,
            question=sample.question,
            images=[{"path": picture.path, "sha256": picture.sha256} for picture in pictures],
            response=text,
            answer=answer,
            correct=named.correct,
            strict=strict.correct,
            understood=strict.understood is not None,
        )
