"""Answering with one process, or several that take batches from one list."""

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from queue import Empty
from typing import Any

import torch

from components.evaluation.generation.generator import Encoded, Generator
from mantis.errors import EvaluationError, MantisError
from mantis.processes import die_with_parent

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 1.0  # at whether a process has died

Batch = Sequence[Encoded]
Load = Callable[[str], Generator]  # of a device: "cpu", "cuda:0"
Keep = Callable[[Batch, list[str]], None]  # what a process does with the responses of a batch


@dataclass(frozen=True, kw_only=True)
class BatchQueue:
    """What is to be answered, dearest first; `unanswered` drops what somebody else has answered meanwhile."""

    batches: Sequence[Batch]
    unanswered: Callable[[Batch], Batch]
    keep: Keep


def devices(processes: int) -> list[str]:
    """A device for each process; with `processes` 0, one process per GPU, or one on the CPU where there is none."""
    gpus = torch.cuda.device_count()  # asks the driver: CUDA itself must not be woken before processes are forked
    if not gpus:
        return ["cpu"] * max(1, processes)
    return [f"cuda:{number % gpus}" for number in range(processes or gpus)]


def answer(work: BatchQueue, load: Load, on: Sequence[str], done: Callable[[int], object]) -> None:
    """Answer all of `work`, one process for each device of `on`; `done(n)` is told how many more were answered.

    Raises:
        EvaluationError: a process died; what it and the others had finished is kept.
    """
    if not work.batches:
        return
    if len(on) == 1:
        _serve(work, load(on[0]), iter(range(len(work.batches))), done)
        return
    # Forked, not spawned: pictures are read through what the parent has open, and the plan need not be sent.
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


def _serve(work: BatchQueue, answerer: Generator, numbers: Iterator[int], done: Callable[[int], object]) -> None:
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
    os._exit(0)  # the parent's own clean-up (temporary folders) is not this process's to do


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
                f"A process that answers ended with exit code {process.exitcode}.",
                remedy="Start the same command again: it goes on with what is answered. If memory ran out, lower "
                "evaluation.batch_tokens or evaluation.processes.",
            )
    if all(process.exitcode == 0 for process in processes):
        raise EvaluationError("The processes that answer ended early.", remedy="Start the same command again.")
