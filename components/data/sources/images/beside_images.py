"""Reads images from the zips beside the rows, and from files where no zip has them."""

from dataclasses import dataclass
from functools import cached_property

from components.data.sources.images.folder_images import FolderImages
from components.data.sources.images.zip_images import ZipImages
from components.data.sources.rejection import RowRejected
from components.data.sources.source_identity import Memory, Named
from mantis.hashing import fingerprint
from mantis.store.base import StoredObject

# Files beside the rows that hold no image. If nothing else is there, the rows need not be read for the fingerprint.
NO_IMAGES = (".arrow", ".gitattributes", ".gz", ".json", ".jsonl", ".md", ".parquet", ".txt", ".yaml", ".yml", ".zip")


@dataclass(frozen=True, kw_only=True)
class BesideImages:
    """The members of `zips`, then the files of `folder`: a zip of something else hides no file."""

    zips: ZipImages
    folder: FolderImages

    def read(self, path: str, *, max_bytes: int) -> bytes:
        try:
            return self.zips.read(path, max_bytes=max_bytes)
        except RowRejected as refusal:
            if refusal.reason != "image-missing" or not self._has_files:
                raise
        return self.folder.read(path, max_bytes=max_bytes)

    def fingerprint(self, memory: Memory, named: Named) -> str:
        """Hash of the zips and, if the rows name files that no zip has, of these files."""
        zips = self.zips.fingerprint(memory, named)
        if not self._has_files:
            return zips
        missing = frozenset(path for path in named() if not self.zips.holds(path))
        return fingerprint([zips, self.folder.fingerprint(memory, lambda: missing)]) if missing else zips

    @cached_property
    def _has_files(self) -> bool:
        return any(_may_be_image(entry) for entry in self.folder.store.list(self.folder.folder))


def _may_be_image(entry: StoredObject) -> bool:
    return not entry.key.lower().endswith(NO_IMAGES)
