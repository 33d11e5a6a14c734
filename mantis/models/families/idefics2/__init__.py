"""Idefics2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mantis.config.model_settings import ImageSettings
from mantis.models.family_spec import FamilySpec, ReleasedLayout

if TYPE_CHECKING:
    from mantis.models.family import Family
    from mantis.models.verification.reference_processor import FamilyReference


def _load() -> Family:
    from mantis.models.families.idefics2.model import Idefics2

    return Idefics2()


def _reference() -> FamilyReference:
    from mantis.models.families.idefics2.reference import REFERENCE

    return REFERENCE


IDEFICS2 = FamilySpec(
    name="idefics2",
    package=__name__,
    load=_load,
    reference=_reference,
    small_image=ImageSettings(size=98, patch_size=14, latents=5),
    released=ReleasedLayout(model_type="idefics2"),
)
