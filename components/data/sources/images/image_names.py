"""Compares the names of images: Unicode forms, backslashes, and useless parts of a path make no difference."""

import posixpath
import unicodedata

from components.data.sources.rejection import RowRejected

BELOW = "a path below the source"


def clean(path: str, folder: str = "") -> str:
    """Normalize a path that is relative to `folder`, a folder of the source: remove `.`, `..` and `//`.

    Returns the path relative to the source.

    Raises:
        RowRejected: the path leads out of the source, is empty, or holds a NUL character.
    """
    if "\0" in path or not path:
        raise RowRejected("image-missing", value=path)
    plain = posixpath.normpath(posixpath.join(folder, path))
    if plain.startswith("/") or plain == ".." or plain.startswith("../"):
        raise RowRejected("image-outside", value=path, threshold=BELOW)
    return plain


def leads_up(path: str) -> bool:
    """Whether a relative path leads out of the folder that it is relative to."""
    return posixpath.normpath(path.replace("\\", "/")).split("/", 1)[0] == ".."


def plain_name(name: str) -> str:
    """The form in which names are compared after an exact name was not found.

    macOS stores decomposed characters (NFD), and programs of Windows write backslashes into zips.
    """
    return posixpath.normpath(unicodedata.normalize("NFC", name).replace("\\", "/")) if name else name


def plain_member(name: bytes) -> bytes:
    """`plain_name` of a zip member, as UTF-8. A name that is not UTF-8 is in code page 437 (APPNOTE, appendix D)."""
    if name.isascii() and b"\\" not in name and b"./" not in name and b"//" not in name:
        return name
    try:
        text = name.decode()
    except UnicodeDecodeError:
        text = name.decode("cp437")
    return plain_name(text).encode()
