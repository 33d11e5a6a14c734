"""SmolVLM, which is an Idefics3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mantis.config.model_settings import ImageSettings
from mantis.models.family_spec import FamilySpec, ReleasedLayout

if TYPE_CHECKING:
    from mantis.models.family import Family
    from mantis.models.verification.reference_processor import FamilyReference


def _load() -> Family:
    from mantis.models.families.smolvlm.model import SmolVlm

    return SmolVlm()


def _reference() -> FamilyReference:
    from mantis.models.families.smolvlm.reference import REFERENCE

    return REFERENCE


SMOLVLM = FamilySpec(
    name="smolvlm",
    package=__name__,
    load=_load,
    reference=_reference,
    small_image=ImageSettings(size=48, patch_size=12, latents=4, max_pixels=4 * 48 * 48),
    caps=("max_pixels", "max_pixels_per_sample"),
    released=ReleasedLayout(model_type="idefics3"),
)
