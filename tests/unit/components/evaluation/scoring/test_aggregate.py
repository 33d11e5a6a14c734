import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, poisson_binom

from components.evaluation.aggregate import score_rows, summarize
from components.evaluation.benchmarks.benchmark_catalog import load_benchmark, parse_benchmark
from components.evaluation.readers.benchmark_reader import Missing
from components.evaluation.scoring.score_response import score_response
from components.evaluation.scoring.targets import Target
from mantis.artifacts.responses import Response
from mantis.artifacts.scores import Score
from mantis.errors import EvaluationError
from mantis.statistics import holm

CHOICE = Target(kind="multiple-choice", options=("a", "b", "c", "d"), answers=("B",))


def response(
    number: int, skill: str, score: float, unit: str | None = None, target: Target = CHOICE, strict: float = 0.0
) -> Response:
    return Response(
        id=str(number), skill=skill, unit=unit or str(number), question="?", images=[], response="", answer="B",
        target=target.to_json(), official=score, strict=strict, score=score, correct=score >= 0.5, parsed=True,
    )  # fmt: skip


def test_macro_is_the_mean_of_the_tasks_and_micro_of_the_samples() -> None:
    given = [response(n, "Counting", 1.0) for n in range(90)] + [response(n, "Jigsaw", 0.0) for n in range(90, 100)]
    blink = load_benchmark("blink")
    overall, counting, jigsaw = score_rows(blink, {"actual": given}, [], seed=0)
    assert (overall.skill, overall.aggregation, overall.accuracy) == ("overall", "macro", 0.5)
    assert (counting.accuracy, jigsaw.accuracy, counting.aggregation) == (1, 0, None)
    assert (overall.samples, overall.chance, overall.metric) == (100, 0.25, "blink")
    micro = blink.model_copy(update={"aggregation": "micro"})
    assert score_rows(micro, {"actual": given}, [], seed=0)[0].accuracy == 0.9
    assert summarize([overall, counting, jigsaw])["accuracy"] == 0.5


def test_mirb_averages_its_four_dimensions() -> None:
    # results_summary.py: knowledge (1 + 0) / 2, reasoning 1, perception (0 + 0 + 1) / 3, multi-hop 1
    right = {"food": 1, "sightseeing": 0, "codeu": 1, "image_jigsaw": 0, "count": 0, "attribute": 1, "arxiv": 1}
    word = Target(kind="short", answers=("red",))
    given = [response(n, skill, float(score), target=word) for n, (skill, score) in enumerate(right.items())]
    mirb = load_benchmark("mirb")
    overall = score_rows(mirb, {"actual": given, "blind": given}, [], seed=0)[0]
    expected = (1 / 2 + 1 + 1 / 3 + 1) / 4
    assert overall.aggregation == "grouped"
    assert (overall.accuracy, overall.blind) == (pytest.approx(expected), pytest.approx(expected))
    assert overall.groups["3d_scene"] == "reasoning"
    assert all(row.groups == {} for row in score_rows(mirb, {"actual": given}, [], seed=0)[1:])
    assert {row.reason for row in overall.paper} == {"The published figure is over 925 samples, this score over 7."}


def test_a_grouped_average_needs_groups() -> None:
    text = (
        "title: Pets\nkind: short\nmetric: mantis\naggregation: grouped\nprompts: {mantis: {templates: {short: x}}}\n"
    )
    with pytest.raises(EvaluationError, match=r"group in every skill; b has none"):
        parse_benchmark(text + "skills: {a: {label: A, group: g}, b: {label: B}}", name="pets")


def test_variants_and_cut_responses_stand_in_the_row() -> None:
    said = [score_response(text, CHOICE, "mmmu") for text in ("(B)", "no idea", "x" * 100_000)]
    given = [
        Response(
            id=str(n), skill="Math", unit=str(n), question="?", images=[], response="", answer="B",
            target=CHOICE.to_json(), **judged.stored("official"),
        )
        for n, judged in enumerate(said)
    ]  # fmt: skip
    overall = score_rows(load_benchmark("mmmu"), {"actual": given}, [], seed=0)[0]
    assert overall.accuracy == pytest.approx(1 / 3)
    assert overall.variants == {"random guess": pytest.approx((1 + 1 / 4 + 1 / 4) / 3)}
    assert (overall.cut, overall.unparsed) == (1, 2)


def test_a_question_with_rotated_options_is_right_only_as_a_whole() -> None:
    given = [response(0, "ocr", 1.0, "q0"), response(1, "ocr", 1.0, "q0"),
             response(2, "ocr", 1.0, "q1"), response(3, "ocr", 0.0, "q1")]  # fmt: skip
    overall = score_rows(load_benchmark("mmbench"), {"actual": given}, [], seed=0)[0]
    assert overall.accuracy == 0.5
    assert overall.samples == 4
    assert overall.chance == 0.25**2


def test_partial_credit_is_averaged_and_nothing_is_guessed() -> None:
    ten = Target(kind="short", answers=("red",) * 10)
    given = [response(n, "text", score, target=ten, strict=1.0) for n, score in enumerate((0.3, 0.6, 1.0))]
    overall, text = score_rows(load_benchmark("textvqa"), {"actual": given, "blind": given}, [], seed=0)
    assert overall.accuracy == pytest.approx(1.9 / 3)
    assert (overall.strict, overall.chance, text.blind_p) == (1, 0, None)
    assert overall.low < overall.accuracy < overall.high


def test_what_is_missing_is_in_its_row_and_in_the_headline() -> None:
    given = [response(0, "moving_count", 1.0)]
    gone = [Missing(id="e", skill="episodic_reasoning", reason="video-missing"),
            Missing(id="m", skill="moving_count", reason="video-unreadable"),
            Missing(id="?", skill="", reason="row-wrong")]  # fmt: skip
    overall, counted = score_rows(load_benchmark("mvbench"), {"actual": given}, gone, seed=0)
    assert (overall.missing, counted.missing) == (3, 1)


def test_a_stored_row_has_the_form_that_the_report_reads() -> None:
    given = [response(n, "Counting", 1.0) for n in range(4)]
    overall, counting = score_rows(load_benchmark("blink"), {"actual": given, "blind": given}, [], seed=0)
    assert list(overall.stored()) == [
        "benchmark", "skill", "label", "metric", "aggregation", "groups", "samples", "drawn_from", "missing", "units",
        "clusters", "accuracy", "low", "high", "official", "strict", "chance", "unparsed", "cut", "variants", "blind",
        "blind_p", "blind_corrected_p", "shuffled", "shuffled_p", "shuffled_corrected_p", "conditions", "comparable",
        "reason", "paper",
    ]  # fmt: skip
    assert list(counting.stored()) == list(overall.stored())[:-1]
    assert counting.stored()["shuffled"] is None
    stored = json.loads(json.dumps([overall.stored(), counting.stored()], allow_nan=False))
    assert [Score.model_validate(row) for row in stored] == [overall, counting]


def with_images(number: int, score: float, *images: str, unit: str | None = None, cluster: str = "") -> Response:
    made = response(number, "Counting", score, unit)
    return replace(made, images=[{"path": name, "sha256": name} for name in images], cluster=cluster)


def test_the_interval_is_of_clusters_where_samples_share_an_image() -> None:
    alone = [with_images(n, float(n // 5 % 2), f"image {n}") for n in range(100)]
    shared = [with_images(n, float(n // 5 % 2), f"image {n // 5}") for n in range(100)]
    clip = [with_images(n, float(n // 5 % 2), f"frame {n}", cluster=f"clip {n // 5}") for n in range(100)]
    rows = [score_rows(load_benchmark("blink"), {"actual": given}, [], seed=0)[0] for given in (alone, shared, clip)]
    assert [(row.units, row.clusters) for row in rows] == [(100, 100), (100, 20), (100, 20)]
    widths = [row.high - row.low for row in rows]
    assert widths[1] > 2 * widths[0]  # sqrt(5) times, as five answers about an image agree
    assert widths[2] == widths[1]
    assert rows[0].accuracy == rows[1].accuracy


def test_samples_are_linked_by_way_of_others_but_not_by_an_image_that_most_show() -> None:
    linked = [with_images(0, 1, "a", "b"), with_images(1, 0, "b", "c"), with_images(2, 0, "c"), with_images(3, 1, "d"),
              with_images(4, 1, "e"), with_images(5, 1, "f"), with_images(6, 1, "g", unit="4")]  # fmt: skip
    logo = [replace(each, images=[*each.images, {"path": "logo", "sha256": "logo"}]) for each in linked]
    for given in (linked, logo):
        overall = score_rows(load_benchmark("blink"), {"actual": given}, [], seed=0)[0]
        assert (overall.samples, overall.units, overall.clusters) == (7, 6, 4)


def test_a_unit_is_guessed_only_with_all_of_its_samples() -> None:
    given = [response(n, "Counting", float(n < 4), f"unit {n // 2}") for n in range(6)]
    row = score_rows(load_benchmark("blink"), {"actual": given, "blind": given}, [], seed=0)[0]
    assert (row.units, row.chance) == (3, pytest.approx(1 / 16))
    assert row.blind_p == pytest.approx(binom.sf(1, 3, 1 / 16))  # two units of three are right


def test_controls_count_units_among_those_that_can_be_guessed() -> None:
    """Four rotations of each question: a quarter of the rows is right, and hardly any question."""
    rng = np.random.default_rng(0)
    given = [response(n, "ocr", float(rng.random() < 0.25), f"q{n // 4}") for n in range(1200)]
    row = score_rows(load_benchmark("mmbench"), {"actual": given, "blind": given}, [], seed=0)[0]
    right = sum(all(each.correct for each in given[4 * q : 4 * q + 4]) for q in range(300))
    assert row.blind == right / 300
    assert row.blind_p == pytest.approx(binom.sf(right - 1, 300, 0.25**4))
    assert row.blind_corrected_p is not None
    assert row.blind_corrected_p > 0.1


def test_p_is_that_of_different_chances() -> None:
    two = Target(kind="multiple-choice", options=("a", "b"), answers=("B",))
    given = [response(n, "Counting", float(n % 3 == 0), target=two if n % 2 else CHOICE) for n in range(90)]
    row = score_rows(load_benchmark("blink"), {"actual": given, "blind": given}, [], seed=0)[1]
    assert row.blind_p == pytest.approx(poisson_binom([0.5 if n % 2 else 0.25 for n in range(90)]).sf(29))
    assert row.chance == pytest.approx(0.375)


def test_what_cannot_be_guessed_is_not_in_the_test_of_a_control() -> None:
    open_question = Target(kind="short", answers=("red",))
    given = [response(n, "Art", 1.0, target=open_question) for n in range(50)]
    given += [response(50 + n, "Art", float(n % 4 == 0)) for n in range(40)]
    overall, _ = score_rows(load_benchmark("mmmu"), {"actual": given, "blind": given}, [], seed=0)
    assert overall.blind == pytest.approx(60 / 90)
    assert overall.blind_p == pytest.approx(binom.sf(9, 40, 0.25))


def test_p_values_are_corrected_for_the_rows_of_the_benchmark() -> None:
    names = list(load_benchmark("blink").skills)
    given = [response(100 * k + n, name, float(n < 25 + 3 * k)) for k, name in enumerate(names) for n in range(100)]
    overall, *rows = score_rows(load_benchmark("blink"), {"actual": given, "blind": given}, [], seed=0)
    ps = [row.blind_p for row in rows]
    assert [row.blind_corrected_p for row in rows] == pytest.approx([min(1, 2 * p) for p in holm(ps)])
    assert overall.blind_corrected_p == pytest.approx(2 * overall.blind_p)
    assert all(row.shuffled_p is row.shuffled_corrected_p is None for row in rows)


def test_unparsed_counts_what_the_scoring_of_the_accuracy_found() -> None:
    given = [replace(response(n, "Counting", 0.0), parsed=n >= 6) for n in range(10)]
    overall = score_rows(load_benchmark("blink"), {"actual": given}, [], seed=0)[0]
    assert (overall.unparsed, overall.unreadable, overall.above_chance) == (6, True, False)
