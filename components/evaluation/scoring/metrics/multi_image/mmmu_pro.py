"""MMMU-Pro's rule: the letter behind the last "Answer:", else the last letter or option that the response names.

Source: MMMU-Benchmark/MMMU, mmmu-pro/evaluate.py, parse_multi_choice_response. That code guesses if it finds no answer;
here such a response is wrong.
"""

from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult, chosen, strict_choice
from components.evaluation.scoring.targets import Target

LEAD = "Answer:"
STRIPPED = (",", ".", "!", "?", ";", ":", "'")
FORMS = ("({})", "{} ", "{}.")  # of a letter, the surest first
SHORTEST_TEXT = 6  # words of a response in which the text of an option is searched


def official(response: str, target: Target) -> MetricResult:
    """Take the only option's letter that occurs behind the last "Answer:", else what `_named` finds."""
    _, lead, stated = response.rpartition(LEAD)
    letters = [letter for letter in target.letters if letter in stated] if lead else []
    letter = letters[0] if len(letters) == 1 else _named(response, target)
    return chosen(letter, target) if letter else NOTHING


def _named(response: str, target: Target) -> str | None:
    """The letter that stands last in its surest form, else the option whose text stands last."""
    for character in STRIPPED:
        response = response.strip(character)
    text = f" {response} "
    for form in FORMS:
        letters = [letter for letter in target.letters if form.format(letter) in text]
        if letters:
            placed = form if form == FORMS[0] else " {} "  # the source looks for blanks on both sides of a bare letter
            return (
                letters[0] if len(letters) == 1 else max(letters, key=lambda letter: text.rfind(placed.format(letter)))
            )
    lower = text.lower()
    options = {letter: option.lower() for letter, option in zip(target.letters, target.options, strict=True)}
    named = [letter for letter, option in options.items() if option in lower]
    if not named or len(text.split()) < SHORTEST_TEXT:
        return None
    return max(named, key=lambda letter: lower.rfind(options[letter]))


strict = strict_choice
