"""Idefics3: the model and the images of SmolVLM, with the tokens of LLaMA-3."""

from dataclasses import dataclass
from typing import ClassVar

from mantis.models.families.smolvlm.model import SmolVlm


@dataclass(frozen=True, kw_only=True)
class Idefics3(SmolVlm):
    """See Family."""

    name: str = "idefics3"
    template: str = "idefics3"
    text_tokens: ClassVar[tuple[str, str]] = ("<|begin_of_text|>", "<|end_of_text|>")
