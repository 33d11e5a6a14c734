"""Answers questions from the journal, generates the missing responses, and writes them to the journal."""

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mantis.artifacts.layout import responses_key
from mantis.config.evaluation_settings import EvaluationSettings
from mantis.generation.answerer import AnsweringModel, Question
from mantis.generation.cache.journal import Journal, JournalEntry
from mantis.generation.decoding import Decoding
from mantis.generation.workers import Batch, BatchQueue, answer
from mantis.hashing import fingerprint
from mantis.store.base import ObjectStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A response to every question, in order; None: the model's service refused to answer.

    `generated` counts the new ones; `seconds` is the time of the call.
    """

    responses: list[str | None]
    generated: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ResponseCache:
    """The responses of one model to one set of questions with one decoding.

    `questions` names the set in the store, e.g. the name of a benchmark. `title` names it in messages.
    """

    store: ObjectStore
    settings: EvaluationSettings
    questions: str
    title: str
    decoding: Decoding
    model: AnsweringModel

    def responses(self, questions: Sequence[Question], done: Callable[[int], object]) -> Answered:
        """Answer every question. Each call of `done(n)` reports that n more questions have a response."""
        began = time.monotonic()
        keys = [self.key(question) for question in questions]
        journal = Journal(self.store, self.prefix)
        missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in journal}
        done(len(keys) - len(missing))
        if missing:
            self._generate(journal, missing, done)
            journal.refresh()
        return Answered(
            responses=[journal.response(key) if key in journal else None for key in keys],
            generated=sum(key in journal for key in missing),
            seconds=time.monotonic() - began,
        )

    @property
    def prefix(self) -> str:
        """The key prefix of the journal. The set of questions only keeps journals small: no key contains it."""
        return responses_key(self.model.manifest.fingerprint, self.questions, fingerprint(self._identity))

    def key(self, question: Question) -> str:
        """Hash of everything that decides the response: the model, the texts, the images and the decoding.

        Questions that agree in these share one response, e.g. the same text about grey images of one size.
        """
        return fingerprint(
            {
                **self._identity,
                "prompt": question.prompt,
                "pictures": [picture.sha256 for picture in question.pictures],
                "allowed": list(question.allowed),  # decoding chooses among these
                # A question without earlier turns keeps the key that it had before there were any.
                **({"system": question.system} if question.system else {}),
                **({"history": [[turn.role, turn.content] for turn in question.history]} if question.history else {}),
            }
        )

    @cached_property
    def _identity(self) -> dict[str, object]:
        return {
            "model": {"weights": self.model.manifest.fingerprint, **self.model.identity()},
            "decoding": {
                "revision": self.model.revision,
                # A new field of the decoding leaves the keys of profiles without it.
                **self.decoding.model_dump(mode="json", exclude_defaults=True),
            },
        }

    def _generate(self, journal: Journal, missing: dict[str, Question], done: Callable[[int], object]) -> None:
        with tempfile.TemporaryDirectory(prefix="mantis-model-") as temporary:
            model = self.model.open(self.store, self.decoding, Path(temporary))
            prepared = model.prepare(list(missing.values()))
            on = model.devices(self.settings.processes)
            logger.info("%s: answering %s questions on %s", self.title, f"{len(prepared):,}", ", ".join(on))
            answer(self._work(journal, model.plan(prepared, self.settings)), model.load, on, done)

    def _work(self, journal: Journal, plan: Sequence[Batch]) -> BatchQueue:
        def unanswered(batch: Batch) -> Batch:
            journal.refresh()  # another worker may have started on the same benchmark
            return [each for each in batch if self.key(each.question) not in journal]

        def keep(batch: Batch, responses: Sequence[str | None]) -> None:
            entries = [
                JournalEntry(key=self.key(each.question), id=each.question.id, response=response)
                for each, response in zip(batch, responses, strict=True)
                if response is not None
            ]
            if entries:
                journal.add(entries)

        return BatchQueue(batches=plan, unanswered=unanswered, keep=keep)
