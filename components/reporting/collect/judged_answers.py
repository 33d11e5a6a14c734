"""All judged answers of a run, in chunks that a page loads one at a time."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.reporting.collect.artifact_reader import Reader
from mantis.artifacts.layout import benchmark_of
from mantis.artifacts.manifest import Manifest

CHUNK = 250  # answers; a chunk has about 100 kB
LONGEST = 4000  # characters of a question or a response
OUTCOMES = ("right", "wrong", "not parsed")


class JudgedAnswer(BaseModel):
    """A line of `responses/actual-<part>.jsonl`, as far as a person reads it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    skill: str
    question: str
    answer: str
    response: str
    correct: bool
    parsed: bool = True
    images: tuple[dict[str, str], ...] = Field(default=())

    @property
    def outcome(self) -> str:
        """One of OUTCOMES."""
        return "right" if self.correct else "wrong" if self.parsed else "not parsed"

    def columns(self) -> list[Any]:
        """The answer as a row of a chunk: id, skill, outcome, question, expected answer, response, paths of images."""
        texts = [text[:LONGEST] for text in (self.question, self.answer, self.response)]
        return [self.id, self.skill, self.outcome, *texts, [image.get("path", "") for image in self.images]]


@dataclass(frozen=True, kw_only=True)
class AnswerChunk:
    """Some answers of one benchmark, sorted by skill and outcome."""

    benchmark: str
    number: int
    answers: tuple[JudgedAnswer, ...]

    @property
    def file(self) -> str:
        """Its file, in the folder of the report."""
        return f"answers/{self.benchmark}-{self.number:05d}.js"

    def groups(self) -> list[tuple[str, str, int]]:
        """Skill, outcome and number of the answers, for a page that chooses chunks."""
        counted = Counter((answer.skill, answer.outcome) for answer in self.answers)
        return [(skill, outcome, count) for (skill, outcome), count in counted.items()]

    def script(self) -> bytes:
        """The chunk as a script: a page that was opened from a disk may load scripts, but no JSON."""
        content = {"file": self.file, "rows": [answer.columns() for answer in self.answers]}
        return f"mantisAnswers({json.dumps(content)});\n".encode()


def answer_chunks(reader: Reader, evaluations: Sequence[Manifest]) -> Iterator[AnswerChunk]:
    """Yield the answers of each evaluation in chunks. One evaluation is in memory at a time."""
    for evaluation in evaluations:
        answers = sorted(_answers(reader, evaluation), key=lambda answer: (answer.skill, answer.outcome))
        for number, start in enumerate(range(0, len(answers), CHUNK)):
            yield AnswerChunk(
                benchmark=benchmark_of(evaluation.key), number=number, answers=tuple(answers[start : start + CHUNK])
            )


def _answers(reader: Reader, evaluation: Manifest) -> list[JudgedAnswer]:
    try:
        return [JudgedAnswer.model_validate(row) for row in reader.responses(evaluation)]
    except ValidationError:
        reader.note(f"{evaluation.key} was written by an earlier version. Its answers cannot be browsed.")
        return []
