"""From the address of a store to its parts. Every character of an address means itself, or the address is refused."""

import re
from pathlib import Path
from urllib.parse import unquote

from mantis.errors import ConfigError

SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
BUCKETS = ("s3", "gs", "az")  # the schemes of stores in a bucket
UNESCAPED = re.compile(r"%(?![0-9A-Fa-f]{2})")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def scheme_of(url: str) -> str:
    """The scheme of an address in lower case; empty for a path."""
    found = SCHEME.fullmatch(url)
    return found["scheme"].lower() if found else "file" if url.lower().startswith("file:") else ""


def folder_of(url: str, *, field: str = "store") -> Path:
    """The folder that `url` means: a path, which may begin with `~`, or a `file:` URL with its percent signs decoded.

    Raises:
        ConfigError: the URL has a host, a query or a fragment, or a percent sign that escapes nothing; `field` is the
            name of the setting in the message.
    """
    if CONTROL.search(url) or not url:
        raise ConfigError(f"{field} = {url!r} is no folder.", remedy="Use a path or file:///absolute/path.")
    return _folder_of_url(url, field) if scheme_of(url) == "file" else _folder_of_path(url, field)


def _folder_of_path(path: str, field: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{field} = {path!r}: there is no such user.", remedy=f"Write ./{path} for a folder of this name."
        ) from None


def _folder_of_url(url: str, field: str) -> Path:
    rest = url[len("file:") :]
    host, slash, path = rest[2:].partition("/") if rest.startswith("//") else ("", rest[:1], rest[1:])
    if host not in ("", "localhost") or slash != "/":
        raise ConfigError(
            f"{field} = {url!r} names the host {host!r}." if host else f"{field} = {url!r} has no absolute path.",
            remedy="Use file:///absolute/path, with three slashes.",
        )
    for sign, written in (("#", "%23"), ("?", "%3F")):
        if sign in path:
            raise ConfigError(
                f"{field} = {url!r} holds {sign!r}, which ends the path of a URL.",
                remedy=f"Write {written} for it, or give the path without file://.",
            )
    if UNESCAPED.search(path):
        raise ConfigError(
            f"{field} = {url!r} holds '%' without two hexadecimal digits behind it.",
            remedy="Write %25 for it, or give the path without file://.",
        )
    folder = unquote(path, errors="surrogateescape")
    if CONTROL.search(folder):
        raise ConfigError(f"{field} = {url!r} is no folder.", remedy="Use a path or file:///absolute/path.")
    return Path("/" + folder)


def bucket_of(url: str) -> tuple[str, str]:
    """Bucket and prefix of an address such as `s3://bucket/prefix`. `#`, `?`, `%` and `~` are part of a name.

    Raises:
        ConfigError: it names no bucket, a name that no bucket can have, or a prefix with an empty or dotted part.
    """
    found = SCHEME.fullmatch(url)
    bucket, _, prefix = (found["rest"] if found else "").partition("/")
    if not BUCKET.fullmatch(bucket):
        raise ConfigError(
            f"store = {url!r} names no bucket." if not bucket else f"store = {url!r}: {bucket!r} is no bucket's name.",
            remedy=f"Use {scheme_of(url)}://bucket/prefix. It has 3 to 63 small letters, digits, dots and hyphens.",
        )
    prefix = prefix.strip("/")
    parts = prefix.split("/") if prefix else []
    if CONTROL.search(prefix) or any(part in ("", ".", "..") for part in parts):
        raise ConfigError(
            f"store = {url!r}: the prefix has an empty part, a dotted part or a control character.",
            remedy=f"Use {scheme_of(url)}://bucket/prefix with names between single slashes.",
        )
    return bucket, prefix
