"""The model's card with its scores: what replaces README.md where the model is given to others.

Conversion writes the card before anything is evaluated, and what is committed stays as it is.
"""

from collections.abc import Sequence

from components.reporting.collect.report_schema import RunReport
from components.reporting.render.markdown import score_sections
from mantis.artifacts.manifest import Manifest
from mantis.artifacts.store_addresses import key_of
from mantis.store.base import ObjectStore

BEFORE = "\n## Licence\n"  # of the card, components/conversion/model_card.py


def card_with_scores(store: ObjectStore, evaluations: Sequence[Manifest], report: RunReport) -> str | None:
    """README.md of the model that was evaluated, with the report's scores; None where it has none."""
    models = {manifest.inputs["model"].key for manifest in evaluations if "model" in manifest.inputs}
    if len(models) != 1:
        return None
    key = f"{key_of(store, models.pop())}/README.md"
    if store.stat(key) is None:
        return None
    scores = "\n\n".join(score_sections(report))
    first, mark, rest = store.get(key).decode().partition(BEFORE)
    return f"{first}\n{scores}\n{mark}{rest}"
