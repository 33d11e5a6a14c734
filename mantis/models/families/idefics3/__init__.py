"""Idefics3: SmolVLM's architecture with LLaMA-3."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mantis.models.families.smolvlm import SMOLVLM

if TYPE_CHECKING:
    from mantis.models.family import Family
    from mantis.models.verification.reference_processor import FamilyReference


def _load() -> Family:
    from mantis.models.families.idefics3.model import Idefics3

    return Idefics3()


def _reference() -> FamilyReference:
    from mantis.models.families.idefics3.reference import REFERENCE

    return REFERENCE


IDEFICS3 = replace(SMOLVLM, name="idefics3", package=__name__, load=_load, reference=_reference)
