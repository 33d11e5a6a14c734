"""Read files of artifacts that may be absent. Each gap becomes a note of the report."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from mantis.artifacts.held_out import HELD_OUT
from mantis.artifacts.manifest import Manifest
from mantis.artifacts.responses import ACTUAL, FOLDER
from mantis.errors import IntegrityError, NotFoundError
from mantis.runs.lineage import Link, walk
from mantis.schema_versions import Form, load_rows
from mantis.store.base import ObjectStore


class Reader:
    """Reads files of artifacts. A missing or broken file gives a note, and None or an empty list.

    An unreachable store is not a gap: its StoreError reaches the caller.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def data(self, artifact: Manifest, name: str) -> bytes | None:
        """Read the bytes of a file of `artifact`; None if it is missing."""
        try:
            return self.store.get(f"{artifact.key}/{name}")
        except NotFoundError:
            self.note(f"{artifact.key}/{name} is missing.")
            return None

    def json_rows(self, artifact: Manifest, name: str, form: Form, key: str) -> list[dict[str, Any]]:
        """Read the list of objects at `key` of a JSON document. `form` decides which schema versions can be read.

        Raises:
            VersionError: a later version of this program wrote the document.
        """
        data = self.data(artifact, name)
        if data is None:
            return []
        try:
            rows = load_rows(form, key, data, f"{artifact.key}/{name}")
        except IntegrityError:  # it is no JSON
            rows = None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            self.note(f"{artifact.key}/{name} is not a JSON list of objects.")
            return []
        return rows

    def scores(self, evaluation: Manifest) -> list[dict[str, Any]]:
        """Read the rows of scores.json."""
        return self.json_rows(evaluation, "scores.json", Form.SCORES, "scores")

    def answers(self, evaluation: Manifest) -> list[dict[str, Any]]:
        """Read the entries of gallery.json."""
        return self.json_rows(evaluation, "gallery.json", Form.GALLERY, "answers")

    def held_out(self, evaluation: Manifest) -> list[dict[str, Any]]:
        """Read the rows of holdout.json; empty for the evaluation of another benchmark."""
        if not any(file.name == HELD_OUT for file in evaluation.files):
            return []
        return self.json_rows(evaluation, HELD_OUT, Form.HELD_OUT_SCORES, "rows")

    def responses(self, evaluation: Manifest) -> Iterator[dict[str, Any]]:
        """Read the judged responses to the benchmark as it is, without those of the controls, one file at a time."""
        for name in sorted(file.name for file in evaluation.files if file.name.startswith(f"{FOLDER}/{ACTUAL}-")):
            yield from self.json_lines(evaluation, name)

    def json_lines(self, artifact: Manifest, name: str) -> list[dict[str, Any]]:
        """Read a file with one JSON object per line."""
        data = self.data(artifact, name)
        try:
            return [json.loads(line) for line in (data or b"").splitlines() if line.strip()]
        except ValueError:
            self.note(f"{artifact.key}/{name} does not have one JSON object per line.")
            return []

    def parquet(self, artifact: Manifest, name: str) -> list[dict[str, Any]]:
        """Read the rows of a Parquet file."""
        data = self.data(artifact, name)
        if data is None:
            return []
        try:
            rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
        except (OSError, ValueError):  # the base classes of pyarrow's errors
            self.note(f"{artifact.key}/{name} is not a Parquet file.")
            return []
        return rows

    def chain(self, artifact: Manifest) -> list[Link]:
        """List the artifact and its ancestors. Hashes are not checked here; `mantis lineage` checks them."""
        links: list[Link] = []
        try:
            for link in walk(self.store, artifact, check=False):
                links.append(link)
                for problem in link.problems:
                    self.note(f"{problem}.")
        except IntegrityError as error:
            self.note(str(error))
        return links
