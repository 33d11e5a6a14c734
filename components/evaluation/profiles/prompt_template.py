"""The entry that a benchmark has for a profile: the template of the prompt, and values of the benchmark alone."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from components.evaluation.profiles.image_layouts import ImageLayout
from components.evaluation.scoring.targets import Kind


class ProfileData(BaseModel):
    """Base of everything that profiles.yaml and `prompts` of a benchmark hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PromptPart(ProfileData):
    """A part of the prompt, made from the row. The template names it in braces.

    - `column`: the column of its value. A space joins the values of several columns.
    - `values`: maps the value to another text. A value that is not listed gives no text.
    - `text`: the part, with {value} in it.
    - `absent`: the part of a row without a value.
    """

    column: str | tuple[str, ...]
    values: dict[str, str] | None = None
    text: str = "{value}"
    absent: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the part reads."""
        return (self.column,) if isinstance(self.column, str) else self.column


class Prompt(ProfileData):
    """The template of the user's turn, and how the benchmark differs from the rest of the profile.

    `templates` has a text for each kind of answer. It may hold these fields:
    - {question}: the row's question. `question` names another column for it; `capitalize` applies str.capitalize.
    - {options}: the options, made from `option` and joined by `between`. {letter} is an option's letter, {text} its
      text without a letter of its own, {raw} its published text. `lettered` is the form of an option whose published
      text has its letter already, as "A)", "A:" or "A.".
    - {letters}: the letters of the options, joined by ", ".
    - {hint}: the text `hint` with the row's hint in it. A row without a hint leaves {hint} empty.
    - {images}: the place of images that have no mark in question and options. Without it they come first.
    - {NAME}: a part of `parts`.

    `image_numbers`: `marks` puts an image in the place of "<image 1>"; `text` leaves these words, and puts the images
    where those without a mark stand. `max_images` leaves out further images. `wrappers: false` says that the official
    run did not use the wrappers of `families`. `metric` is the rule of this profile, if it is not the benchmark's.
    `source` names the official code.
    """

    source: str = ""
    templates: dict[Kind, str] = Field(min_length=1)
    question: str | None = None
    capitalize: bool = False
    option: str = " ({letter}) {text}"
    lettered: str | None = None
    between: str = "\n"
    hint: str = "{hint}\n"
    parts: dict[str, PromptPart] = Field(default_factory=dict)
    image_numbers: Literal["marks", "text"] = "marks"
    max_images: Annotated[int, Field(ge=1)] | None = None
    images: ImageLayout | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: tuple[str, ...] | None = None
    metric: str | None = None
    wrappers: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the prompt reads beside those of the benchmark's `fields`."""
        parts = [column for part in self.parts.values() for column in part.columns]
        return tuple(dict.fromkeys([*parts, *([] if self.question is None else [self.question])]))
