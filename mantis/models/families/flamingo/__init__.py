"""Flamingo, in the architecture of Idefics 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mantis.config.model_settings import ImageSettings
from mantis.models.family_spec import FamilySpec

if TYPE_CHECKING:
    from mantis.models.family import Family
    from mantis.models.verification.reference_processor import FamilyReference


def _load() -> Family:
    from mantis.models.families.flamingo.model import Flamingo

    return Flamingo()


def _reference() -> FamilyReference:
    from mantis.models.families.flamingo.reference import REFERENCE

    return REFERENCE


FLAMINGO = FamilySpec(
    name="flamingo",
    package=__name__,
    load=_load,
    reference=_reference,
    small_image=ImageSettings(size=48, patch_size=12),
    parts=("vision", "projector", "text", "cross_attention", "embeddings"),
)
