"""A JSON file that holds an object with the rows under `data`: `{"version": 1, "data": [...]}`."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from components.data.sources.files.json_files import BEGINNING, JsonRows, beginning
from components.data.sources.files.json_stream import begins_member, read_member
from components.data.sources.files.source_form import SourceForm
from components.data.sources.rows.row_reader import RowReader
from mantis.store.base import ObjectStore, StoredObject

WIDEST = 1 << 22  # bytes before the member with the rows


def _recognises(store: ObjectStore, file: StoredObject) -> bool:
    head = beginning(store, file)
    whole = len(head) < BEGINNING // 4  # a character has at most four bytes
    if whole or not head.startswith("{") or begins_member(head):
        return begins_member(head)
    return begins_member(beginning(store, file, WIDEST))


def _open(store: ObjectStore, files: Sequence[StoredObject], reader: RowReader) -> JsonRows:
    return JsonRows(store=store, files=tuple(files), parse=partial(read_member, is_row=partial(_is_row, reader)))


def _is_row(reader: RowReader, value: Any) -> bool:
    return isinstance(value, dict) and reader.knows(value)


JSON_OBJECT = SourceForm(name="json-object", suffixes=(".json", ".json.gz"), recognises=_recognises, open=_open)
