"""The table of the forms of files, in the order in which they are tried."""

from components.data.sources.files.arrow_rows import ARROW
from components.data.sources.files.json_lines import JSON_LINES
from components.data.sources.files.json_list import JSON_LIST
from components.data.sources.files.json_object import JSON_OBJECT
from components.data.sources.files.parquet_rows import PARQUET
from components.data.sources.files.source_form import SourceForm
from components.data.sources.files.tar_rows import WEBDATASET

SOURCE_FORMS: tuple[SourceForm, ...] = (JSON_LIST, JSON_LINES, JSON_OBJECT, PARQUET, ARROW, WEBDATASET)
