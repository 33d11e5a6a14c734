"""Reading what may be absent: each gap becomes a note of the report."""

import io
import json
from typing import Any

import pyarrow.parquet as pq

from mantis.artifacts.manifest import Manifest
from mantis.errors import IntegrityError, NotFoundError
from mantis.runs.lineage import Link, walk
from mantis.schema_versions import Form, load_rows
from mantis.store.base import ObjectStore


class Reader:
    """Reads files of artifacts; where one is missing or broken it notes so and gives None or nothing.

    A store that is away is no gap: its StoreError goes through.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Say once that something is missing."""
        if text not in self.notes:
            self.notes.append(text)

    def data(self, artifact: Manifest, name: str) -> bytes | None:
        """The bytes of a file of `artifact`."""
        try:
            return self.store.get(f"{artifact.key}/{name}")
        except NotFoundError:
            self.note(f"{artifact.key}/{name} is not there.")
            return None

    def json_rows(self, artifact: Manifest, name: str, form: Form, key: str) -> list[dict[str, Any]]:
        """The objects of the list at `key` of a JSON document; `form` says which versions can be read.

        Raises:
            VersionError: a later version of this program wrote it.
        """
        data = self.data(artifact, name)
        if data is None:
            return []
        try:
            rows = load_rows(form, key, data, f"{artifact.key}/{name}")
        except ValueError:
            rows = None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            self.note(f"{artifact.key}/{name} is not a JSON list of objects.")
            return []
        return rows

    def scores(self, evaluation: Manifest) -> list[dict[str, Any]]:
        """The rows of scores.json."""
        return self.json_rows(evaluation, "scores.json", Form.SCORES, "scores")

    def answers(self, evaluation: Manifest) -> list[dict[str, Any]]:
        """The entries of gallery.json."""
        return self.json_rows(evaluation, "gallery.json", Form.GALLERY, "answers")

    def json_lines(self, artifact: Manifest, name: str) -> list[dict[str, Any]]:
        """The objects of a file with one JSON object per line."""
        data = self.data(artifact, name)
        try:
            return [json.loads(line) for line in (data or b"").splitlines() if line.strip()]
        except ValueError:
            self.note(f"{artifact.key}/{name} is not JSON, line by line.")
            return []

    def parquet(self, artifact: Manifest, name: str) -> list[dict[str, Any]]:
        """The rows of a Parquet file."""
        data = self.data(artifact, name)
        if data is None:
            return []
        try:
            rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
        except (OSError, ValueError):  # pyarrow's own errors are these
            self.note(f"{artifact.key}/{name} is not a Parquet file.")
            return []
        return rows

    def chain(self, artifact: Manifest) -> list[Link]:
        """The artifact and what it was made from; hashes are not checked, `mantis lineage` does that."""
        links: list[Link] = []
        try:
            for link in walk(self.store, artifact, check=False):
                links.append(link)
                for problem in link.problems:
                    self.note(f"{problem}.")
        except IntegrityError as error:
            self.note(str(error))
        return links
