"""How responses are generated."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

END_OF_TEXT = "end-of-text"  # in `stop`: the token that ends a text of the tokenizer


class Decoding(BaseModel):
    """How a response is generated, always greedily.

    `stop` lists ends of a response beside the end of an answer: END_OF_TEXT, or a token of the vocabulary.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_new_tokens: Annotated[int, Field(ge=1)]
    stop: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The decoding as published results state it."""
        return f"greedy {self.max_new_tokens}"
