"""LLaVA: CLIP or SigLIP with LLaMA-3, SigLIP with Qwen2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mantis.config.model_settings import ImageSettings
from mantis.models.family_spec import FamilySpec, ReleasedLayout

if TYPE_CHECKING:
    from mantis.models.family import Family
    from mantis.models.verification.reference_processor import FamilyReference

SMALL_IMAGE = ImageSettings(size=48, patch_size=12)


def _clip() -> Family:
    from mantis.models.families.llava.model import Llava
    from mantis.models.families.llava.processing import CLIP

    return Llava(name="llava-clip", tower=CLIP)


def _siglip() -> Family:
    from mantis.models.families.llava.model import Llava
    from mantis.models.families.llava.processing import SIGLIP

    return Llava(name="llava-siglip", tower=SIGLIP)


def _qwen2() -> Family:
    from mantis.models.families.llava.model import Llava
    from mantis.models.families.llava.processing import QWEN2, SIGLIP

    return Llava(name="llava-qwen2", tower=SIGLIP, language=QWEN2)


def _reference() -> FamilyReference:
    from mantis.models.families.llava.reference import REFERENCE

    return REFERENCE


def _qwen2_reference() -> FamilyReference:
    from mantis.models.families.llava.reference import QWEN2_REFERENCE

    return QWEN2_REFERENCE


LLAVA_CLIP = FamilySpec(
    name="llava-clip",
    package=__name__,
    load=_clip,
    reference=_reference,
    small_image=SMALL_IMAGE,
    released=ReleasedLayout(model_type="llava", vision_model_type="clip_vision_model", text_model_type="llama"),
)
LLAVA_SIGLIP = FamilySpec(
    name="llava-siglip",
    package=__name__,
    load=_siglip,
    reference=_reference,
    small_image=SMALL_IMAGE,
    released=ReleasedLayout(model_type="llava", vision_model_type="siglip_vision_model", text_model_type="llama"),
)
LLAVA_QWEN2 = FamilySpec(
    name="llava-qwen2",
    package=__name__,
    load=_qwen2,
    reference=_qwen2_reference,
    small_image=SMALL_IMAGE,
    released=ReleasedLayout(model_type="llava", vision_model_type="siglip_vision_model", text_model_type="qwen2"),
)
