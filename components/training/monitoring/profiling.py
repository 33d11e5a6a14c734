"""Traces some steps with torch.profiler and stores the trace beside the checkpoint."""

import logging
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from mantis.errors import ConfigError
from mantis.store.base import ObjectStore

logger = logging.getLogger(__name__)

STEPS = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True, kw_only=True)
class Span:
    """Steps `first` to `last`, counted from 1, both included."""

    first: int
    last: int


def parse_span(text: str) -> Span:
    """`10:12` as steps 10, 11 and 12.

    Raises:
        ConfigError: `text` is not a span of steps.
    """
    match = STEPS.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(
            f"--profile-steps = {text!r} is not a span of steps.",
            remedy="Give the first and the last step, counted from 1: 10:12.",
        )
    return Span(first=int(match[1]), last=int(match[2]))


class StepProfiler:
    """Traces the steps of `span` on this rank; without a span it does nothing."""

    def __init__(self, store: ObjectStore, prefix: str, span: Span | None, *, rank: int) -> None:
        self._store, self._span = store, span
        self._key = f"{prefix}/profiles/steps-{span.first}-{span.last}-rank-{rank}.json.gz" if span else ""
        self._profile: profile | None = None

    def begin(self, step: int) -> None:
        """Start tracing if step `step` (from 1) is in the span and no trace runs yet."""
        span = self._span
        if span is not None and self._profile is None and span.first <= step <= span.last:
            self._profile = profile(activities=_activities(), profile_memory=True)
            self._profile.start()

    def end(self, step: int) -> None:
        """Stop tracing and store the trace if step `step` (from 1) is the last of the span."""
        if self._span is not None and self._profile is not None and step == self._span.last:
            self._leave(self._profile)

    def _leave(self, traced: profile) -> None:
        traced.stop()
        self._span = self._profile = None
        with tempfile.TemporaryDirectory(prefix="mantis-profile-") as folder:
            path = Path(folder) / "trace.json.gz"
            traced.export_chrome_trace(str(path))
            self._store.put_file(self._key, path)
        logger.info("Wrote a trace for chrome://tracing or ui.perfetto.dev: %s", self._store.uri(self._key))


def _activities() -> list[ProfilerActivity]:
    cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    return [ProfilerActivity.CPU, *cuda]
