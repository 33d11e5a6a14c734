"""JSON Lines: one row per line, as `datasets` and most trainers write them. A `.json` file may hold them, too."""

from collections.abc import Sequence

from components.data.sources.files.json_files import JsonRows, beginning
from components.data.sources.files.json_stream import first_values, read_values
from components.data.sources.files.source_form import SourceForm, base_name
from components.data.sources.rows.row_reader import RowReader
from mantis.store.base import ObjectStore, StoredObject

OWN = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")


def _recognises(store: ObjectStore, file: StoredObject) -> bool:
    """By its suffix; a `.json` file by two values in a row, or by one value that is a row."""
    if base_name(file).lower().endswith(OWN):
        return True
    values = first_values(beginning(store, file), 2)
    if not values or not isinstance(values[0], dict):
        return False
    return len(values) > 1 or RowReader().knows(values[0])


def _open(store: ObjectStore, files: Sequence[StoredObject], reader: RowReader) -> JsonRows:
    return JsonRows(store=store, files=tuple(files), parse=read_values)


JSON_LINES = SourceForm(name="json-lines", suffixes=(*OWN, ".json", ".json.gz"), recognises=_recognises, open=_open)
