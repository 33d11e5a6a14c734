"""Generates responses with one process, or with several that share a queue of batches."""

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from queue import Empty
from typing import Any

from mantis.errors import EvaluationError, MantisError
from mantis.generation.answerer import Answerer
from mantis.processes import die_with_parent

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 1.0  # between two checks whether a process has died

Batch = Sequence[Any]  # of one kind of PreparedQuestion, which the model's own `prepare` makes
Load = Callable[[str], Answerer[Any]]  # loads a model onto a device: "cpu", "cuda:0"
Keep = Callable[[Batch, Sequence[str | None]], None]  # stores the responses of a batch


@dataclass(frozen=True, kw_only=True)
class BatchQueue:
    """The batches to answer, the most expensive first.

    `unanswered` removes the questions of a batch that another worker has answered. `keep` stores the responses.
    """

    batches: Sequence[Batch]
    unanswered: Callable[[Batch], Batch]
    keep: Keep


def devices(processes: int) -> list[str]:
    """Choose a device for each process. `processes` = 0 means one per GPU or, without GPUs, one on the CPU."""
    import torch  # a service is asked without it

    gpus = torch.cuda.device_count()  # asks the driver, since CUDA must not be initialized before a fork
    if not gpus:
        return ["cpu"] * max(1, processes)
    return [f"cuda:{number % gpus}" for number in range(processes or gpus)]


def answer(work: BatchQueue, load: Load, on: Sequence[str], done: Callable[[int], object]) -> None:
    """Answer all of `work` with one process for each device of `on`.

    Each call of `done(n)` reports that n more questions are answered.

    Raises:
        EvaluationError: a process died. Finished batches of all processes are kept.
    """
    if not work.batches:
        return
    if len(on) == 1:
        _serve(work, load(on[0]), iter(range(len(work.batches))), done)
        return
    # Forked, not spawned: the children read images through open files of the parent, and share its batches.
    context = multiprocessing.get_context("fork")
    taken, told = context.Value("q", 0), context.Queue()
    processes = [
        context.Process(target=_child, args=(work, load, device, len(on), taken, told), daemon=True) for device in on
    ]
    for process in processes:
        process.start()
    try:
        _follow(processes, told, sum(map(len, work.batches)), done)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _serve(work: BatchQueue, answerer: Answerer[Any], numbers: Iterator[int], done: Callable[[int], object]) -> None:
    asked: list[Batch] = []

    def batches() -> Iterator[Batch]:
        for number in numbers:
            batch = work.unanswered(work.batches[number])
            done(len(work.batches[number]) - len(batch))
            if batch:
                asked.append(batch)
                yield batch

    for responses in answerer.answer(batches()):
        batch = asked.pop(0)
        work.keep(batch, responses)
        done(len(batch))


def _child(work: BatchQueue, load: Load, device: str, count: int, taken: Any, told: Any) -> None:
    import torch

    die_with_parent(signal.SIGKILL)
    torch.set_num_threads(max(1, torch.get_num_threads() // count))

    def numbers() -> Iterator[int]:
        while True:
            with taken.get_lock():
                number = taken.value
                taken.value += 1
            if number >= len(work.batches):
                return
            yield number

    try:
        _serve(work, load(device), numbers(), told.put)
    except MantisError as error:
        told.put(error)
    told.close()
    told.join_thread()
    os._exit(0)  # skips the clean-up of temporary folders, which belongs to the parent


def _follow(processes: Sequence[ForkProcess], told: Any, total: int, done: Callable[[int], object]) -> None:
    while total:
        try:
            message = told.get(timeout=SECONDS_BETWEEN_LOOKS)
        except Empty:
            _raise_for(processes)
            continue
        if isinstance(message, MantisError):
            raise message
        total -= message
        done(message)


def _raise_for(processes: Sequence[ForkProcess]) -> None:
    for process in processes:
        if process.exitcode not in (None, 0):
            logger.error("Process %s, which answers questions, ended with exit code %s", process.pid, process.exitcode)
            raise EvaluationError(
                f"A process that generates responses ended with exit code {process.exitcode}.",
                remedy="Run the same command again. It keeps the finished responses. If memory ran out, lower "
                "evaluation.batch_tokens or evaluation.processes.",
            )
    if all(process.exitcode == 0 for process in processes):
        raise EvaluationError(
            "The processes that generate responses ended early.", remedy="Run the same command again."
        )
