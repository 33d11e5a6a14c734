"""Idefics3: SmolVLM's architecture with LLaMA-3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mantis.config.model_settings import ImageSettings
from mantis.models.family_spec import FamilySpec, ReleasedLayout

if TYPE_CHECKING:
    from mantis.models.family import Family
    from mantis.models.verification.reference_processor import FamilyReference


def _load() -> Family:
    from mantis.models.families.idefics3.model import Idefics3

    return Idefics3()


def _reference() -> FamilyReference:
    from mantis.models.families.idefics3.reference import REFERENCE

    return REFERENCE


IDEFICS3 = FamilySpec(
    name="idefics3",
    package=__name__,
    load=_load,
    reference=_reference,
    small_image=ImageSettings(size=48, patch_size=12, latents=4, max_pixels=4 * 48 * 48),
    caps=("max_pixels", "max_pixels_per_sample"),
    released=ReleasedLayout(model_type="idefics3"),
)
