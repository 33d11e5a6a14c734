"""Fuyu."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mantis.config.model_settings import ImageSettings
from mantis.models.family_spec import FamilySpec, ReleasedLayout

if TYPE_CHECKING:
    from mantis.models.family import Family
    from mantis.models.verification.reference_processor import FamilyReference


def _load() -> Family:
    from mantis.models.families.fuyu.model import Fuyu

    return Fuyu()


def _reference() -> FamilyReference:
    from mantis.models.families.fuyu.reference import REFERENCE

    return REFERENCE


FUYU = FamilySpec(
    name="fuyu",
    package=__name__,
    load=_load,
    reference=_reference,
    small_image=ImageSettings(size=120, width=240, patch_size=30),
    parts=("projector", "text"),
    released=ReleasedLayout(model_type="fuyu"),
)
