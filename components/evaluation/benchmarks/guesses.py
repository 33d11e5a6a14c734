"""The answers that a guess chooses from, and how often such a guess is right.

A control must choose one of these answers. So its chance is that of a guess among the same ones.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from components.evaluation.benchmarks.benchmark_catalog import Benchmark, Skill
from components.evaluation.scoring.score_response import rules
from components.evaluation.scoring.targets import CHOICES, Target
from mantis.artifacts.responses import CORRECT

LETTER = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z])")  # a capital by itself, such as (A), B: or C.
FEWEST = 2  # letters in a question that show its options


@dataclass(frozen=True, kw_only=True)
class Chance:
    """A guess at one sample: its expected score, and its probability to be right (score of at least CORRECT)."""

    score: float
    right: float


NOTHING_TO_GUESS = Chance(score=0.0, right=0.0)


def valid_answers(target: Target, question: str, skill: Skill) -> tuple[str, ...]:
    """The answers that may be given. Empty means any text, so that nothing can be guessed.

    They are the options' letters or texts. A sample without options has the `guesses` of its skill, if its right answer
    is one of them. If these are letters, those that the question shows count.
    """
    if target.kind in CHOICES:
        return tuple(target.letters)
    if target.options:
        return target.options
    known = {guess.casefold() for guess in skill.guesses}
    if not any(answer.strip().casefold() in known for answer in target.answers):
        return ()
    if all(len(guess) == 1 for guess in skill.guesses):
        shown = set(LETTER.findall(question)).intersection(skill.guesses)
        right = {answer.strip().upper() for answer in target.answers}
        if len(shown) >= FEWEST and right <= shown:
            return tuple(guess for guess in skill.guesses if guess in shown)
    return skill.guesses


def chance_of(target: Target, question: str, benchmark: Benchmark, skill: str) -> Chance:
    """The chance of a guess that takes each valid answer equally often. A skill's own `chance` goes first."""
    described = benchmark.skills[skill]
    if described.chance is not None:
        return Chance(score=described.chance, right=described.chance)
    answers = valid_answers(target, question, described)
    if not answers:
        return NOTHING_TO_GUESS
    scores = _scores(answers, target, benchmark.metric)
    return Chance(score=sum(scores) / len(scores), right=sum(score >= CORRECT for score in scores) / len(scores))


def _scores(answers: Sequence[str], target: Target, metric: str) -> list[float]:
    if target.kind in CHOICES:
        return [float(letter in target.answers) for letter in answers]
    official = rules(metric).official
    return [official(answer, target).score for answer in answers]
