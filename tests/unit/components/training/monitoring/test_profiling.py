import gzip
import json

import pytest
import torch

from components.training.monitoring.profiling import Span, StepProfiler, parse_span
from mantis.errors import ConfigError
from mantis.store.local import LocalStore


def test_a_span_is_two_steps_in_order() -> None:
    assert parse_span("10:12") == Span(first=10, last=12)
    for wrong in ("10", "12:10", "0:3", "a:b"):
        with pytest.raises(ConfigError, match="profile-steps"):
            parse_span(wrong)


def test_a_trace_of_the_asked_steps_is_left(local_store: LocalStore) -> None:
    profiler = StepProfiler(local_store, "checkpoints/x", Span(first=2, last=3), rank=1)
    for step in range(1, 5):
        profiler.begin(step)
        with torch.profiler.record_function(f"step {step}"):
            torch.ones(4, 4) @ torch.ones(4, 4)
        profiler.end(step)
    found = gzip.decompress(local_store.get("checkpoints/x/profiles/steps-2-3-rank-1.json.gz"))
    names = {event.get("name") for event in json.loads(found)["traceEvents"]}
    assert {"step 2", "step 3", "aten::mm"} <= names
    assert not {"step 1", "step 4"} & names
