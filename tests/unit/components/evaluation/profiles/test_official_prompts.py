"""Prompts and limits are those that the official functions gave for the same rows (official_prompts.py)."""

import json
from collections import Counter
from typing import Any

import pytest

from components.evaluation.benchmarks.benchmark_catalog import known_benchmarks, load_benchmark
from components.evaluation.benchmarks.prompts import make_prompt
from components.evaluation.benchmarks.samples import parse_row
from tests.golden.official_prompts import FILE
from tests.helpers.tested_families import PAPER

RECORDS = json.loads(FILE.read_text())
GENERATED = {"demo-multi", "demo-single"}
# Prompts without a function that could run here; test_multi_image_benchmarks.py compares them.
ELSEWHERE = {("seed-bench-2", "lmms-eval")} | {
    (name, "official")
    for name in known_benchmarks()
    if name.startswith(("llava-interleave", "mmmu-pro", "seed-bench", "video-mme", "vlm2-bench"))
}


def name_of(record: Any) -> str:
    row = record["row"]
    ids = ("id", "idx", "pid", "index", "question_id", "sample_id")
    found = next((str(row[column]) for column in ids if column in row), row.get("hint", "")[:5])
    return f"{record['benchmark']}-{record['profile']}-{record['family'] or 'any'}-{found}"


@pytest.mark.parametrize("record", RECORDS, ids=name_of)
def test_prompt_and_limit_are_the_official_ones(record: Any) -> None:
    benchmark = load_benchmark(record["benchmark"], profile=record["profile"], family=record["family"])
    prompt, places = make_prompt(parse_row(record["row"], 0, benchmark), benchmark)
    assert prompt == record["prompt"]
    assert prompt.count("<image>") == len(places)
    assert benchmark.resolved.name == record["profile"]
    if record["max_new_tokens"] is not None:
        assert benchmark.resolved.decoding.max_new_tokens == record["max_new_tokens"]


def test_every_entry_of_every_benchmark_has_a_golden_text() -> None:
    entries = {
        (name, profile)
        for name in known_benchmarks()
        if name not in GENERATED
        for profile in load_benchmark(name).prompts
        if profile != "direct"
    }
    assert {(record["benchmark"], record["profile"]) for record in RECORDS} == entries - ELSEWHERE
    families = Counter(record["family"] for record in RECORDS if record["profile"] == "official")
    assert set(families) == {"", *PAPER}
