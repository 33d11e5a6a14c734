"""Compares the names of images: Unicode forms, backslashes, and useless parts of a path make no difference."""

import posixpath
import unicodedata

from components.data.sources.rejection import RowRejected

BELOW = "a path below the folder of the rows"


def clean(path: str) -> str:
    """Normalize a relative path: remove `.` and `//`.

    Raises:
        RowRejected: the path leads out of its folder, is empty, or holds a NUL character.
    """
    if "\0" in path or not path:
        raise RowRejected("image-missing", value=path)
    plain = posixpath.normpath(path)
    if plain.startswith("/") or plain == ".." or plain.startswith("../"):
        raise RowRejected("image-outside", value=path, threshold=BELOW)
    return plain


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
