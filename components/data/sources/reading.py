"""How a source is read: the forms that the recipe names, and its map of columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from components.data.sources.files.form_table import SOURCE_FORMS
from components.data.sources.files.source_form import SourceForm
from components.data.sources.rows.row_form import RowForm
from components.data.sources.rows.row_reader import COLUMN_FIELDS, ROW_FORMS
from mantis.config.data_settings import DataSettings
from mantis.errors import ConfigError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What overrides the forms that are found, and the largest image of an archive that is read whole.

    `questions` says whether rows are questions to a model, so that the last one may have no answer.
    """

    source_form: SourceForm | None = None
    row_form: RowForm | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    max_image_bytes: int = 32_000_000
    questions: bool = False


AS_FOUND = Reading()


def reading_of(data: DataSettings, *, questions: bool = False) -> Reading:
    """The reading that `data.format` and `data.columns` ask for. A format is `FILES`, `ROWS` or `FILES/ROWS`.

    With `questions`, the last question of a row may have no answer.

    Raises:
        ConfigError: a form or a field is unknown.
    """
    for name in data.columns:
        if name not in COLUMN_FIELDS:
            raise ConfigError(
                f"data.columns has {name!r}, which is no field of a row.",
                remedy=f"{did_you_mean(name, COLUMN_FIELDS)}Fields: {', '.join(COLUMN_FIELDS)}.",
            )
    files = {form.name: form for form in SOURCE_FORMS}
    rows = {form.name: form for form in ROW_FORMS}
    found = Reading(columns=data.columns, max_image_bytes=data.max_image_bytes, questions=questions)
    for part in (data.format or "").split("/") if data.format else ():
        if part in files and found.source_form is None:
            found = replace(found, source_form=files[part])
        elif part in rows and found.row_form is None:
            found = replace(found, row_form=rows[part])
        else:
            known = (*files, *rows)
            raise ConfigError(
                f"data.format = {data.format!r}: {part!r} is no form.",
                remedy=f"{did_you_mean(part, known)}Files: {', '.join(files)}. Rows: {', '.join(rows)}. "
                "Both: FILES/ROWS.",
            )
    return found
