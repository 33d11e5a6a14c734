"""JSON Lines: one row per line, as `datasets` and most trainers write them. A `.json` file may hold them, too."""

from collections.abc import Sequence

from components.data.sources.files.json_files import BEGINNING, JsonRows, beginning
from components.data.sources.files.json_stream import LONGEST_ROW, begins_member, first_values, read_values
from components.data.sources.files.source_form import SourceForm, base_name
from components.data.sources.rows.row_reader import RowReader
from mantis.store.base import ObjectStore, StoredObject

OWN = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")


def _recognises(store: ObjectStore, file: StoredObject) -> bool:
    """By its suffix; a `.json` file by two values in a row, or by one value that is a row."""
    if base_name(file).lower().endswith(OWN):
        return True
    head = beginning(store, file)
    values = first_values(head, 2)
    if not values and head.startswith("{") and "\n" not in head and not begins_member(head):
        values = first_values(_first_line(store, file), 1)
    if not values or not isinstance(values[0], dict):
        return False
    return len(values) > 1 or RowReader().knows(values[0])


def _first_line(store: ObjectStore, file: StoredObject) -> str:
    """The first line of a file, which may be long if its row embeds images; empty if no row may be so long."""
    size, text = BEGINNING, ""
    while size < LONGEST_ROW:
        size = min(8 * size, LONGEST_ROW)
        longer = beginning(store, file, size)
        if "\n" in longer or len(longer) == len(text):
            return longer.partition("\n")[0]
        text = longer
    return ""


def _open(store: ObjectStore, files: Sequence[StoredObject], reader: RowReader) -> JsonRows:
    return JsonRows(store=store, files=tuple(files), parse=read_values)


JSON_LINES = SourceForm(name="json-lines", suffixes=(*OWN, ".json", ".json.gz"), recognises=_recognises, open=_open)
