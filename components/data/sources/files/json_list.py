"""A JSON file that holds a list of rows, as Mantis and LLaVA publish them."""

from collections.abc import Sequence

from components.data.sources.files.json_files import JsonRows, beginning
from components.data.sources.files.json_stream import read_list
from components.data.sources.files.source_form import SourceForm
from components.data.sources.rows.row_reader import RowReader
from mantis.store.base import ObjectStore, StoredObject


def _recognises(store: ObjectStore, file: StoredObject) -> bool:
    return beginning(store, file).startswith("[")


def _open(store: ObjectStore, files: Sequence[StoredObject], reader: RowReader) -> JsonRows:
    return JsonRows(store=store, files=tuple(files), parse=read_list)


JSON_LIST = SourceForm(name="json-list", suffixes=(".json", ".json.gz"), recognises=_recognises, open=_open)
