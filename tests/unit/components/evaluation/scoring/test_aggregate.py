import json

import pytest

from components.evaluation.aggregate import score_rows, summarize
from components.evaluation.benchmarks.benchmark_catalog import load_benchmark, parse_benchmark
from components.evaluation.readers.benchmark_reader import Missing
from components.evaluation.scoring.score_response import score_response
from components.evaluation.scoring.targets import Target
from mantis.artifacts.responses import Response
from mantis.artifacts.scores import Score
from mantis.errors import EvaluationError

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
    assert all(row.comparable for row in overall.paper)


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


@pytest.mark.parametrize(
    ("name", "model", "accuracy", "comparable"),
    [("mantis-eval", "Mantis-SigLIP", 59.45, True), ("blink", "Mantis-Idefics2", 49.05, True),
     ("vqav2", "Mantis-CLIP", 73.0, False), ("mathvista", "Mantis-CLIP", 31.7, False),
     ("muirbench", "Mantis-Idefics2", 44.5, True), ("nlvr2", "Random", 48.93, True)],
)  # fmt: skip
def test_published_rows_stand_in_the_headline(name: str, model: str, accuracy: float, comparable: bool) -> None:
    benchmark = load_benchmark(name)
    given = [response(0, next(iter(benchmark.skills)), 1.0)]
    paper = {row.model: row for row in score_rows(benchmark, {"actual": given}, [], seed=0)[0].paper}
    assert (paper[model].accuracy, paper[model].comparable) == (accuracy, comparable)


def test_a_stored_row_has_the_form_that_the_report_reads() -> None:
    given = [response(n, "Counting", 1.0) for n in range(4)]
    overall, counting = score_rows(load_benchmark("blink"), {"actual": given, "blind": given}, [], seed=0)
    assert list(overall.stored()) == [
        "benchmark", "skill", "label", "metric", "aggregation", "groups", "samples", "missing", "accuracy", "low",
        "high", "official", "strict", "chance", "unparsed", "cut", "variants", "blind", "blind_p", "shuffled",
        "shuffled_p", "paper",
    ]  # fmt: skip
    assert list(counting.stored()) == list(overall.stored())[:-1]
    assert counting.stored()["shuffled"] is None
    stored = json.loads(json.dumps([overall.stored(), counting.stored()], allow_nan=False))
    assert [Score.model_validate(row) for row in stored] == [overall, counting]
