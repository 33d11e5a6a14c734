"""A JSON file that holds an object with the rows under `data`: `{"version": 1, "data": [...]}`."""

from collections.abc import Sequence

from components.data.sources.files.json_files import JsonRows, beginning
from components.data.sources.files.json_stream import begins_member, read_member
from components.data.sources.files.source_form import SourceForm
from components.data.sources.rows.row_reader import RowReader
from mantis.store.base import ObjectStore, StoredObject


def _recognises(store: ObjectStore, file: StoredObject) -> bool:
    return begins_member(beginning(store, file))


def _open(store: ObjectStore, files: Sequence[StoredObject], reader: RowReader) -> JsonRows:
    return JsonRows(store=store, files=tuple(files), parse=read_member)


JSON_OBJECT = SourceForm(name="json-object", suffixes=(".json", ".json.gz"), recognises=_recognises, open=_open)
