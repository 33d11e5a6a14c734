"""Add the scores to the model card, for a model that is published.

Conversion writes the card before any evaluation, and a committed file never changes. So this card is another file.
"""

from collections.abc import Sequence

from components.reporting.collect.report_schema import RunReport
from components.reporting.render.markdown import score_sections
from mantis.artifacts.manifest import Manifest
from mantis.artifacts.store_addresses import key_of
from mantis.store.base import ObjectStore

BEFORE = "\n## Licence\n"  # the section of the card before which the scores go, see components/conversion/model_card.py


def card_with_scores(store: ObjectStore, evaluations: Sequence[Manifest], report: RunReport) -> str | None:
    """Return README.md of the evaluated model with the report's scores; None if the model has no README.md."""
    models = {manifest.inputs["model"].key for manifest in evaluations if "model" in manifest.inputs}
    if len(models) != 1:
        return None
    key = f"{key_of(store, models.pop())}/README.md"
    if store.stat(key) is None:
        return None
    scores = "\n\n".join(score_sections(report))
    first, mark, rest = store.get(key).decode().partition(BEFORE)
    return f"{first}\n{scores}\n{mark}{rest}"
