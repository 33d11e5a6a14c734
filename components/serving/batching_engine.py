"""Answers the questions of many threads with one model. Questions that wait are answered together."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace

from components.serving.live_model import LiveModel
from mantis.errors import EvaluationError
from mantis.generation.answerer import PreparedQuestion, Question
from mantis.generation.live_rows import LiveRow, Reply

logger = logging.getLogger(__name__)

GATHER_SECONDS = 0.01  # in which further questions may join those that wait
MOST_PIXELS = 128_000_000  # of the images of a batch, which some processors decode all at once


@dataclass(frozen=True, kw_only=True)
class AnsweredBatch:
    """Questions that the model answered together, and how long it took."""

    questions: int
    seconds: float


@dataclass(kw_only=True, eq=False)
class Ticket:
    """A question that waits for its answer. `future` gets the reply, or the error."""

    prepared: PreparedQuestion
    row: LiveRow
    future: "Future[Reply]" = field(default_factory=Future)
    cancelled: bool = False

    def cancel(self) -> None:
        """Give the question up. Its row ends with the next token, and its place is free."""
        self.cancelled = True


class BatchingEngine:
    """A thread that owns the model. It answers the oldest question together with others that fit beside it.

    Budgets of tokens and patches are those of evaluation. A batch holds at most `most` questions. `observe` gets the
    figures of each answered batch, before anybody gets an answer of it.
    """

    def __init__(
        self, model: LiveModel, *, most: int, observe: Callable[[AnsweredBatch], object] = lambda _: None
    ) -> None:
        self.model = model
        self._most, self._observe = most, observe
        self._counting = threading.Lock()
        self._changed = threading.Condition()
        self._waiting: list[Ticket] = []
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether questions are still answered."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """The number of questions that no batch holds yet."""
        return len(self._waiting)

    def prepare(self, question: Question) -> PreparedQuestion:
        """Encode a question, in the thread of the caller. It raises the errors of `LiveModel.prepare`."""
        with self._counting:
            return self.model.prepare(question)

    def submit(self, prepared: PreparedQuestion, row: LiveRow) -> Ticket:
        """Let a question wait for its answer.

        Raises:
            EvaluationError: the engine was closed.
        """
        ticket = Ticket(prepared=prepared, row=row)
        row.cancelled = lambda: ticket.cancelled
        with self._changed:
            if self._closed:
                raise EvaluationError("The server is stopping.", remedy="Ask again when it has started.")
            self._waiting.append(ticket)
            self._changed.notify_all()
        return ticket

    def close(self) -> None:
        """Answer the batch that is under way, refuse the questions that wait, and end the thread."""
        with self._changed:
            self._closed = True
            left, self._waiting = self._waiting, []
            self._changed.notify_all()
        for ticket in left:
            _fail(ticket, EvaluationError("The server is stopping.", remedy="Ask again when it has started."))
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            self._answer(batch)

    def _next(self) -> list[Ticket] | None:
        """Take the oldest question and those that fit beside it; None when the engine was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(lambda: len(self._waiting) >= self._most or self._closed, timeout=GATHER_SECONDS)
            if self._closed:
                return None
            for ticket in [each for each in self._waiting if each.cancelled]:
                ticket.future.cancel()
                self._waiting.remove(ticket)
            if not self._waiting:
                return []
            batch = self._beside(self._waiting[0])
            self._waiting = [ticket for ticket in self._waiting if ticket not in batch]
            return batch

    def _beside(self, oldest: Ticket) -> list[Ticket]:
        tickets = {id(ticket.prepared): ticket for ticket in self._waiting}
        planned = self.model.plan([ticket.prepared for ticket in self._waiting])
        [together] = [batch for batch in planned if any(each is oldest.prepared for each in batch)]
        others = [tickets[id(each)] for each in together if each is not oldest.prepared]
        batch, pixels = [oldest], _pixels(oldest)
        for ticket in sorted(others, key=self._waiting.index):
            pixels += _pixels(ticket)
            if len(batch) == self._most or pixels > MOST_PIXELS:
                break
            batch.append(ticket)
        return batch

    def _answer(self, batch: Sequence[Ticket]) -> None:
        """Answer a batch. If it fails, each of its questions is answered alone, so that only the culprit fails."""
        if not batch:
            return
        began = time.monotonic()
        try:
            replies = self.model.reply([ticket.prepared for ticket in batch], [ticket.row for ticket in batch])
        except Exception as error:  # whatever a model's code raises must not end the server
            if len(batch) == 1:
                logger.error("A question was not answered: %s: %s", type(error).__name__, error)
                _fail(batch[0], error)
                return
            logger.warning("A batch of %d questions failed, so each is asked alone: %s", len(batch), error)
            for ticket in batch:
                ticket.row = replace(ticket.row, tokens=[], finish=None)  # keeps the text that was sent
                self._answer([ticket])
            return
        self._observe(AnsweredBatch(questions=len(batch), seconds=time.monotonic() - began))
        for ticket, reply in zip(batch, replies, strict=True):
            try:
                ticket.future.set_result(reply)
            except InvalidStateError:
                continue  # the asker has gone


def _pixels(ticket: Ticket) -> int:
    return sum(picture.size.width * picture.size.height for picture in ticket.prepared.question.pictures)


def _fail(ticket: Ticket, error: Exception) -> None:
    try:
        ticket.future.set_exception(error)
    except InvalidStateError:
        return  # the asker has gone
