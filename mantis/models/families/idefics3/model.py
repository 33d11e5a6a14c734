"""Idefics3: the model and the images of SmolVLM, with the tokens of LLaMA-3."""

from dataclasses import dataclass

from mantis.models.conversation import IMAGE_MARK
from mantis.models.families.smolvlm.model import END_OF_UTTERANCE, SmolVlm
from mantis.models.families.smolvlm.processing import AROUND, GLOBAL, MOST_EDGE, tile_name


@dataclass(frozen=True, kw_only=True)
class Idefics3(SmolVlm):
    """See Family."""

    name: str = "idefics3"
    template: str = "idefics3"

    def special_tokens(self) -> list[str]:
        edge = range(1, MOST_EDGE + 1)
        tiles = [tile_name(row, column) for row in edge for column in edge]
        return ["<|begin_of_text|>", "<|end_of_text|>", AROUND, IMAGE_MARK, END_OF_UTTERANCE, GLOBAL, *tiles]
