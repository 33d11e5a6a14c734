"""Reads images from the zips beside the rows, and from files where no zip has them."""

from dataclasses import dataclass

from components.data.sources.images.folder_images import FolderImages
from components.data.sources.images.zip_images import ZipImages
from components.data.sources.rejection import RowRejected
from components.data.sources.source_identity import Memory, Named
from mantis.hashing import fingerprint


@dataclass(frozen=True, kw_only=True)
class BesideImages:
    """The members of `zips`, then the files of `folder`: a zip of something else hides no file."""

    zips: ZipImages
    folder: FolderImages

    def read(self, path: str, *, max_bytes: int) -> bytes:
        try:
            return self.zips.read(path, max_bytes=max_bytes)
        except RowRejected as refusal:
            if refusal.reason != "image-missing" or not self.folder.has_files:
                raise
        return self.folder.read(path, max_bytes=max_bytes)

    def fingerprint(self, memory: Memory, named: Named) -> str:
        """Hash of the zips and, if the rows name files that no zip has, of these files."""
        zips = self.zips.fingerprint(memory, named)
        if not self.folder.has_files:
            return zips
        missing = frozenset(path for path in named() if not self.zips.holds(path))
        return fingerprint([zips, self.folder.fingerprint(memory, lambda: missing)]) if missing else zips
