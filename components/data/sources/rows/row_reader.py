"""Reads a row of any form as a NormalRow: finds the form by the row's keys, and reads turns and images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from components.data.sources.rejection import RowRejected
from components.data.sources.rows.chat_rows import CONVERSATION, MESSAGES
from components.data.sources.rows.completion_rows import COMPLETION
from components.data.sources.rows.instruction_rows import INSTRUCTION
from components.data.sources.rows.normal_row import ImageRef, NormalRow, RawTurn, is_there
from components.data.sources.rows.query_rows import QUERY
from components.data.sources.rows.refused_rows import refuse_preference, refuse_unknown
from components.data.sources.rows.row_form import RowForm
from components.data.sources.rows.row_images import read_image, read_images, read_videos
from components.data.sources.rows.text_pairs import TEXTS
from components.data.sources.rows.turn_lists import CONTENT_KEYS, ROLE_KEYS, TurnNames, TurnReader
from mantis.models.conversation import IMAGE_MARK

ROW_FORMS: tuple[RowForm, ...] = (CONVERSATION, MESSAGES, QUERY, INSTRUCTION, TEXTS, COMPLETION)
ID_KEYS = ("id", "sample_id")  # LLaVA-NeXT's M4-Instruct has sample_id
IMAGE_KEYS = ("images", "image")
VIDEO_KEYS = ("videos", "video")
SYSTEM = "system"
SHARED_KEYS = (*ID_KEYS, *IMAGE_KEYS, *VIDEO_KEYS, SYSTEM)
TURN_FIELDS = {"role": ROLE_KEYS, "content": CONTENT_KEYS}
ROW_FIELDS = dict.fromkeys(key for form in ROW_FORMS for key in (*form.marks, *form.uses))
LIST_KEYS = (*CONVERSATION.marks, *MESSAGES.marks, *TEXTS.marks)  # their values are lists
COLUMN_FIELDS = (*SHARED_KEYS, *ROW_FIELDS, *TURN_FIELDS)  # what data.columns may map


@dataclass(frozen=True, kw_only=True)
class RowReader:
    """How the rows of a source are read.

    Args:
        form: the only form that is tried; None finds the form of each row.
        columns: the key in the rows for a field of COLUMN_FIELDS.
        roots: prefixes of absolute paths of images, each with a slash at its end, and the relative paths that stand
            for them.
        max_image_bytes: the largest image that is kept; a reader of archives need not read more of one.
        questions: whether the last question of a row may have no answer.
    """

    form: RowForm | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    roots: Mapping[str, str] = field(default_factory=dict)
    max_image_bytes: int = 32_000_000
    questions: bool = False

    def id_of(self, raw: Any) -> Any:
        """The value of the row's id, which may have any type; None if it has none."""
        row = raw if isinstance(raw, dict) else {}
        return next((row[key] for key in self.id_columns if is_there(row.get(key))), None)

    def read(self, raw: Any) -> NormalRow:
        """Read the turns and images of a row.

        Raises:
            RowRejected: the row has no known form, or its turns or images are malformed; or `raw` is the reason itself.
        """
        if isinstance(raw, RowRejected):
            raise raw
        if not isinstance(raw, dict):
            raise RowRejected("row-malformed", value=type(raw).__name__, threshold="a mapping")
        row = self._renamed(raw)
        refuse_preference(row)
        form = self.form_of(row)
        reader = TurnReader(names=self._names, unanswered=self.questions)
        turns = _with_system(row.get(SYSTEM), form.turns(row, reader))
        images = self._images(row, reader)
        if form.images_first:
            turns = _images_first(turns, len(images))
        used = (*SHARED_KEYS, *form.marks, *form.uses)
        unused = {key: value for key, value in row.items() if key not in used and is_there(value)}
        beside = next((row[key] for key in VIDEO_KEYS if is_there(row.get(key))), None)
        videos = read_videos(beside, self.roots, reader.nested)
        return NormalRow(
            form=form.name,
            turns=turns,
            images=images,
            videos=videos,
            unused=unused | _second_values(row, form),
            nested=tuple(reader.nested),
        )

    def files(self, raw: Any) -> tuple[str, ...]:
        """The paths of the images and videos that `read` gives; none for a row that it rejects."""
        try:
            row = self.read(raw)
        except RowRejected:
            return ()
        return (*(image.path for image in row.images if image.data is None), *row.videos)

    def form_of(self, row: Mapping[str, Any]) -> RowForm:
        """The form of a row, by its keys.

        Raises:
            RowRejected: the row has no known form.
        """
        forms = ROW_FORMS if self.form is None else (self.form,)
        for form in forms:
            if any(is_there(row.get(key)) for key in form.marks):
                return form
        for form in forms if self.questions else ():
            if form.question and is_there(row.get(form.question)):
                return form
        raise refuse_unknown(row, tuple(key for form in forms for key in form.marks))

    def knows(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has a known form."""
        try:
            self.form_of(self._renamed(row))
        except RowRejected:
            return False
        return True

    def form_of_columns(self, names: Iterable[str]) -> RowForm:
        """The form of rows that have values under `names`.

        Raises:
            RowRejected: such rows have no known form.
        """
        return self.form_of(dict.fromkeys((self._ours.get(name, name) for name in names), True))

    @property
    def id_columns(self) -> tuple[str, ...]:
        """The keys in the rows that may hold the id."""
        return tuple(self.columns.get(key, key) for key in ID_KEYS)

    @property
    def row_columns(self) -> dict[str, str]:
        """The part of `columns` that concerns rows, not turns."""
        return {ours: theirs for ours, theirs in self.columns.items() if ours not in TURN_FIELDS}

    def _images(self, row: Mapping[str, Any], reader: TurnReader) -> tuple[ImageRef, ...]:
        beside = next((row[key] for key in IMAGE_KEYS if is_there(row.get(key))), None)
        inline = [image for image in reader.inline if image is not None]
        if not inline:
            return read_images(beside, self.roots, reader.nested)
        if beside is not None or len(inline) != len(reader.inline):
            what = "`images` too" if beside is not None else "others without one"
            raise RowRejected(
                "images-malformed",
                value=f"content parts hold {len(inline)} images, and {what}",
                threshold="every image in its part, or all in `images`",
            )
        return tuple(read_image(number, image, self.roots, reader.nested) for number, image in enumerate(inline))

    @cached_property
    def _ours(self) -> dict[str, str]:
        return {theirs: ours for ours, theirs in self.row_columns.items()}

    @cached_property
    def _names(self) -> TurnNames:
        own = {ours: (self.columns[ours],) for ours in TURN_FIELDS if ours in self.columns}
        return TurnNames(**own)

    def _renamed(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row under our names. Without `data.columns` it is the row itself.

        Raises:
            RowRejected: the row has both a mapped key and the key that it is mapped to.
        """
        if not self._ours:
            return raw
        mapped = {ours: raw[theirs] for theirs, ours in self._ours.items() if theirs in raw}
        for ours in mapped:
            if is_there(raw.get(ours)) and ours not in self._ours:
                raise RowRejected(
                    "column-twice",
                    value=f"{ours} beside {self.columns[ours]}",
                    threshold="one of them: data.columns maps the second to the first",
                )
        return {key: value for key, value in raw.items() if key not in self._ours and key not in mapped} | mapped


AS_IT_IS = RowReader()


def _with_system(system: Any, turns: tuple[RawTurn, ...]) -> tuple[RawTurn, ...]:
    """Put the text of the key `system` before the turns.

    Raises:
        RowRejected: it is no text, or the turns begin with another system text.
    """
    if not is_there(system):
        return turns
    if not isinstance(system, str):
        raise RowRejected("turn-malformed", value=f"system: {type(system).__name__}", threshold="text")
    if turns and turns[0].role == "system":
        if turns[0].content == system:
            return turns
        raise RowRejected("role-order", value="turn 1: system, beside the key `system`", threshold="one system text")
    return (RawTurn(role="system", content=system), *turns)


def _images_first(turns: tuple[RawTurn, ...], images: int) -> tuple[RawTurn, ...]:
    if any(IMAGE_MARK in turn.content for turn in turns):
        return turns
    first = next((number for number, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None:
        return turns
    marked = replace(turns[first], content=IMAGE_MARK * images + turns[first].content)
    return (*turns[:first], marked, *turns[first + 1 :])


def _second_values(row: Mapping[str, Any], form: RowForm) -> dict[str, Any]:
    """The keys of equal meaning that hold other values than the one that is read."""
    unread: dict[str, Any] = {}
    for keys in (IMAGE_KEYS, VIDEO_KEYS, form.same):
        there = [key for key in keys if is_there(row.get(key))]
        if len(there) > 1:
            first = _as_list(row[there[0]])
            unread |= {key: row[key] for key in there[1:] if _as_list(row[key]) != first}
    return unread


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
