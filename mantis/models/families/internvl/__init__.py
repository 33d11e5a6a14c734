"""InternVL3 and InternVL3.5."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mantis.config.model_settings import ImageSettings
from mantis.models.family_spec import FamilySpec, ReleasedLayout

if TYPE_CHECKING:
    from mantis.models.family import Family
    from mantis.models.verification.reference_processor import FamilyReference


def _load() -> Family:
    from mantis.models.families.internvl.model import InternVl

    return InternVl()


def _reference() -> FamilyReference:
    from mantis.models.families.internvl.reference import REFERENCE

    return REFERENCE


INTERNVL = FamilySpec(
    name="internvl",
    package=__name__,
    load=_load,
    reference=_reference,
    small_image=ImageSettings(size=48, patch_size=12, max_pixels=4 * 48 * 48),
    caps=("max_pixels", "max_pixels_per_sample"),
    released=ReleasedLayout(model_type="internvl"),
)
