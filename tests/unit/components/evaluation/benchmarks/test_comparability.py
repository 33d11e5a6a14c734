"""A published result is compared only with a score that was made in the same way, on the same samples."""

from typing import Any

import pytest

from components.evaluation.benchmarks.benchmark_catalog import Benchmark, known_benchmarks, load_benchmark
from components.evaluation.benchmarks.comparability import published
from mantis.artifacts.scores import PublishedScore, Score

OURS = {"scoring": "official", "prompt": "official", "decoding": "greedy 512", "layout": "sequence"}


def row(benchmark: Benchmark, model: str, **changed: Any) -> tuple[Score, PublishedScore]:
    samples = next((each.samples for each in benchmark.paper if each.model == model), None) or 100
    fields: dict[str, Any] = {"samples": samples, "missing": 0, "conditions": OURS, "aggregation": "macro"} | changed
    bare = Score(benchmark=benchmark.name, skill="overall", accuracy=0.5, low=0.4, high=0.6, chance=0.2, **fields)
    made = published(bare, benchmark)
    return made, next(each for each in made.paper if each.model == model)


def test_the_same_run_is_comparable() -> None:
    score, paper = row(load_benchmark("blink"), "Mantis-Idefics2")
    assert (score.comparable, score.reason) == (True, "")
    assert (paper.comparable, paper.reason, paper.samples, paper.split) == (True, "", 1901, "val")
    assert paper.conditions == OURS


@pytest.mark.parametrize(
    ("model", "changed", "reason"),
    [
        ("Mantis-Idefics2", {"samples": 293, "missing": 1608}, "1,608 of 1,901 samples are missing."),
        ("Mantis-Idefics2", {"samples": 1900}, "The published figure is over 1,901 samples, this score over 1,900."),
        ("Mantis-Idefics2", {"scoring": "strict"}, "has scoring official, this score has scoring strict."),
        ("Mantis-Idefics2", {"prompt": "another"}, "this score has prompt another."),
        ("Mantis-Idefics2", {"decoding": "greedy 8"}, "has decoding greedy 512, this score has decoding greedy 8."),
        ("Mantis-Idefics2", {"layout": "merge"}, "has layout sequence, this score has layout merge."),
        ("Mantis-SigLIP", {}, "has decoding greedy 4096, this score has decoding greedy 512."),
        ("GPT-4V", {}, "has scoring rule, then GPT-3.5, this score has scoring official."),
        ("LLaVA-1.5", {}, "has scoring rule, then GPT-3.5"),
        ("Mantis-Flamingo", {"scoring": "rule, then GPT-3.5"}, "The source does not state its decoding."),
        ("Random", {"scoring": "rule, then GPT-3.5"}, "The source does not state its decoding."),
    ],
)
def test_what_differs_is_the_reason(model: str, changed: dict[str, Any], reason: str) -> None:
    conditions = OURS | {name: value for name, value in changed.items() if name in OURS}
    fields = {name: value for name, value in changed.items() if name not in OURS}
    _, paper = row(load_benchmark("blink"), model, conditions=conditions, **fields)
    assert not paper.comparable
    assert reason in paper.reason


def test_another_split_or_reader_is_not_comparable() -> None:
    score, paper = row(load_benchmark("vqav2"), "Mantis-CLIP")
    assert paper.reason == "The published figure is on test-dev, this score on val."
    assert (score.comparable, score.reason) == (False, paper.reason)
    _, paper = row(load_benchmark("mathvista"), "Mantis-CLIP")
    assert paper.reason == "The published figure has scoring read by GPT-4, this score has scoring official."


def test_conditions_of_foreign_responses_are_taken_for_granted() -> None:
    score, paper = row(load_benchmark("blink"), "Mantis-SigLIP", conditions={"scoring": "official"})
    assert score.comparable
    assert paper.comparable
    assert not row(load_benchmark("blink"), "GPT-4V", conditions={"scoring": "official"})[1].comparable


def test_a_skill_and_a_benchmark_without_figures_have_a_reason() -> None:
    blink = load_benchmark("blink")
    skill = Score(benchmark="blink", skill="Jigsaw", samples=10, accuracy=0.5, low=0.4, high=0.6, chance=0.2)
    assert published(skill, blink).reason == "Published figures are of the whole benchmark."
    assert published(skill, load_benchmark("demo-multi")).reason == "No published figure is known."
    assert not published(skill, blink).comparable


@pytest.mark.parametrize("name", known_benchmarks())
def test_every_published_row_states_its_split_and_says_why_it_cannot_be_compared(name: str) -> None:
    benchmark = load_benchmark(name)
    for each in benchmark.paper:
        assert each.source
        assert each.split
        if benchmark.comparable(each):
            stated = {field: getattr(each, field) for field in OURS}
            assert row(benchmark, each.model, samples=each.samples, conditions=stated)[1].comparable
        else:
            assert row(benchmark, each.model, samples=each.samples or 1)[1].reason


def test_the_paper_figures_of_the_five_multi_image_benchmarks_are_comparable() -> None:
    for name in ("mantis-eval", "nlvr2", "q-bench2", "blink", "mvbench"):
        benchmark = load_benchmark(name)
        comparable = {each.model for each in benchmark.paper if benchmark.comparable(each)}
        assert {"Mantis-CLIP", "Mantis-SigLIP", "Mantis-Idefics2", "Idefics2"} <= comparable
        assert not {"Random", "Mantis-Flamingo"} & comparable
