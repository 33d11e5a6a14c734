"""Reads images from the zips beside the rows, and from files where no zip has them."""

from collections.abc import Iterator
from dataclasses import dataclass

from components.data.sources.images.folder_images import FolderImages
from components.data.sources.images.image_names import leads_up
from components.data.sources.images.zip_images import ZipImages
from components.data.sources.rejection import RowRejected
from components.data.sources.source_identity import Memory, NamedPaths
from mantis.hashing import fingerprint


@dataclass(frozen=True, kw_only=True)
class BesideImages:
    """The members of `zips`, then the files of `folder`: a zip of something else hides no file."""

    zips: ZipImages
    folder: FolderImages

    def read(self, path: str, *, max_bytes: int) -> bytes:
        if not leads_up(path):
            try:
                return self.zips.read(path, max_bytes=max_bytes)
            except RowRejected as refusal:
                if refusal.reason != "image-missing" or not self.folder.has_files:
                    raise
        return self.folder.read(path, max_bytes=max_bytes)

    def fingerprint(self, memory: Memory, named: NamedPaths) -> str:
        """Hash of the zips and, if the rows name files that no zip has, of these files."""
        zips = self.zips.fingerprint(memory, named)
        if not self.folder.may_have_files:
            return zips
        state = ["paths that no zip holds", *named.state, self.folder.has_files, zips, self.zips.names]
        missing = memory.remember_names(state, lambda: self._missing(named))
        return fingerprint([zips, self.folder.hash_of(memory, missing)]) if missing else zips

    def _missing(self, named: NamedPaths) -> Iterator[str]:
        """The paths that no zip holds. To know them costs a look into the directory of each zip."""
        return (path for path in self.folder.readable(named) if leads_up(path) or not self.zips.holds(path))
