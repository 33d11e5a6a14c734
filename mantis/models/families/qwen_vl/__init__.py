"""Qwen2.5-VL and Qwen3-VL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mantis.config.model_settings import ImageSettings
from mantis.models.family_spec import FamilySpec, ReleasedLayout

if TYPE_CHECKING:
    from mantis.models.family import Family
    from mantis.models.verification.reference_processor import FamilyReference

SMALL_IMAGE = ImageSettings(size=48, patch_size=6)
CAPS = ("max_pixels", "min_pixels", "max_pixels_per_sample")


def _qwen2_5() -> Family:
    from mantis.models.families.qwen_vl.model import Qwen25Vl

    return Qwen25Vl()


def _qwen3() -> Family:
    from mantis.models.families.qwen_vl.model import Qwen3Vl

    return Qwen3Vl()


def _qwen2_5_reference() -> FamilyReference:
    from mantis.models.families.qwen_vl.reference import QWEN2_5_REFERENCE

    return QWEN2_5_REFERENCE


def _qwen3_reference() -> FamilyReference:
    from mantis.models.families.qwen_vl.reference import QWEN3_REFERENCE

    return QWEN3_REFERENCE


QWEN2_5_VL = FamilySpec(
    name="qwen2_5-vl",
    package=__name__,
    load=_qwen2_5,
    reference=_qwen2_5_reference,
    small_image=SMALL_IMAGE,
    caps=CAPS,
    released=ReleasedLayout(model_type="qwen2_5_vl"),
)
QWEN3_VL = FamilySpec(
    name="qwen3-vl",
    package=__name__,
    load=_qwen3,
    reference=_qwen3_reference,
    small_image=SMALL_IMAGE,
    caps=CAPS,
    released=ReleasedLayout(model_type="qwen3_vl"),
)
