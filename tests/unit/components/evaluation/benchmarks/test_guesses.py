"""Every benchmark with options has the chance of a guess among them, and a control chooses among the same answers."""

import pytest

from components.evaluation.benchmarks.benchmark_catalog import Benchmark, Skill, load_benchmark, parse_benchmark
from components.evaluation.benchmarks.guesses import chance_of, valid_answers
from components.evaluation.scoring.targets import Kind, Target
from mantis.errors import EvaluationError


def target(kind: Kind, *answers: str, options: tuple[str, ...] = (), subset: str = "") -> Target:
    return Target(kind=kind, answers=answers, options=options, details={"subset": subset} if subset else {})


def chance(benchmark: Benchmark, skill: str, aim: Target, question: str = "?") -> tuple[float, float]:
    found = chance_of(aim, question, benchmark, skill)
    return found.score, found.right


def test_a_choice_is_guessed_among_its_options() -> None:
    blink = load_benchmark("blink")
    assert chance(blink, "Jigsaw", target("multiple-choice", "B", options=("a", "b"))) == (0.5, 0.5)
    assert chance(blink, "Jigsaw", target("multiple-choice", "B", options=("a", "b", "c", "d"))) == (0.25, 0.25)
    twice = target("multiple-choice", "B", "D", options=("a", "b", "c", "b"))
    assert chance(blink, "Jigsaw", twice) == (0.5, 0.5)


def test_nothing_is_guessed_without_options() -> None:
    for name, skill in (("textvqa", "text"), ("mmmu", "Art"), ("vqav2", "other")):
        assert chance(load_benchmark(name), skill, target("short", "red")) == (0, 0)


def test_yes_or_no_is_guessed_at_the_accuracy_that_people_give_it() -> None:
    vqav2 = load_benchmark("vqav2")
    assert valid_answers(target("short", *["yes"] * 10), "?", vqav2.skills["yes/no"]) == ("yes", "no")
    assert chance(vqav2, "yes/no", target("short", *["yes"] * 10)) == (0.5, 0.5)
    split = chance(vqav2, "yes/no", target("short", *["yes"] * 7, *["no"] * 3))
    assert split == (pytest.approx(0.95), 1.0)  # "no" scores 0.9, too


@pytest.mark.parametrize(
    ("subset", "answer", "question", "expected"),
    [
        ("analogy", "Yes", "Do these images make an analogy?", 1 / 2),
        ("attribute", "no", "Do the images have the same style?", 1 / 2),
        ("sightseeing", "Yes", "Are they in the same city?", 1 / 2),
        ("sightseeing", "Paris", "In which city are they?", 0),
        ("food", "C", "Which food? (A) soup (B) bread (C) fish", 1 / 3),
        ("codeu", "A", "Which code draws it?\nA. one\nB. two\nC. three\nD. four", 1 / 4),
        ("image_jigsaw", "B", "Which order?", 1 / 5),  # no letters: the five of the official code
        ("image_jigsaw", "E", "A photo (B) of it", 1 / 5),  # not the options, since the right one is not among them
        ("count", "3", "How many?", 0),
        ("arxiv", "A title", "Which paper?", 0),
    ],
)
def test_mirbs_subsets_with_options_have_a_chance(subset: str, answer: str, question: str, expected: float) -> None:
    mirb = load_benchmark("mirb")
    aim = target("short", answer, subset=subset)
    assert chance(mirb, subset, aim, question) == pytest.approx((expected, expected))
    answers = valid_answers(aim, question, mirb.skills[subset])
    assert len(answers) == (round(1 / expected) if expected else 0)


def test_a_skill_states_its_chance_or_its_guesses() -> None:
    text = (
        "title: T\nkind: short\nmetric: mantis\nprompts: {mantis: {templates: {short: '{question}'}}}\n"
        "skills: {a: {label: A, chance: 0.5, guesses: ['yes', 'no']}}"
    )
    with pytest.raises(EvaluationError, match="exclude each other"):
        parse_benchmark(text, name="t")
    assert Skill(label="A", guesses=("yes", "no")).chance is None


def test_choices_that_stand_in_the_question_have_a_chance() -> None:
    pair = Target(kind="short", answers=("T",), details={"category": "gc-mat", "images": 2})
    assert chance(load_benchmark("vlm2-bench"), "gc-mat", pair, "Is it in both? Answer T or F.") == (0.5, 0.5)
    letter = Target(kind="short", answers=("B",), details={"question_type": "multi-choice"})
    for name, skill in (("llava-interleave-in-domain", "Puzzle"), ("llava-interleave-out-of-domain", "BLINK")):
        assert chance(load_benchmark(name), skill, letter, "Which? A. one B. two C. three D. four") == (0.25, 0.25)
        open_answer = Target(kind="short", answers=("a red cup",), details={"question_type": "open-ended"})
        assert chance(load_benchmark(name), skill, open_answer) == (0, 0)
