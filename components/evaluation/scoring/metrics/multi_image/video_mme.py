"""Video-MME's rule: the first capital letter from A to D, after common leads are removed.

Source: extract_characters_regex of the authors' evaluation script, as open-compass/VLMEvalKit has it in
vlmeval/dataset/utils/videomme.py. Two commas are missing in its list of leads, so four leads form two.
"""

import re

from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult, chosen, strict_choice
from components.evaluation.scoring.targets import Target

LEADS = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",
    "Best answer:Best option:",
    "Answer:",
    "Option:",
)
LETTER = re.compile("[ABCD]")


def official(response: str, target: Target) -> MetricResult:
    """Take the first of the letters A to D that is left in the response."""
    text = response.strip()
    for lead in LEADS:
        text = text.replace(lead, "")
    found = LETTER.search(text)
    return chosen(found[0], target) if found else NOTHING


strict = strict_choice
