"""Parses JSON row by row, so that memory does not grow with the file."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from components.data.sources.rejection import RowRejected
from mantis.errors import InputError

CHUNK = 1 << 20
LONGEST_ROW = 1 << 26  # characters; a longer item is a syntax error or no conversation
REMEDY = (
    "Repair the file. It holds a list of rows, a row per line, or an object with the rows under `data`. "
    "--format names its form."
)
BLANK = " \t\r\n"
ENDS = (",", "]", "}", ":", *BLANK)
MEMBER = "data"


@dataclass
class RowDecoder:
    """Decodes JSON values. A value in which a key has two different values is a RowRejected."""

    _twice: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)
        self._patient = json.JSONDecoder(object_pairs_hook=self._object, parse_int=_whole)

    def raw_decode(self, text: str, at: int = 0) -> tuple[Any, int]:
        """Decode the value at the place `at` of `text`. Returns it, and the place behind it.

        Raises:
            json.JSONDecodeError: broken JSON.
            RecursionError: the value is nested too deeply.
        """
        self._twice.clear()
        try:
            value, end = self._decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            raise
        except ValueError:  # a number of more digits than Python converts; a decoder with a parse_int is slower
            value, end = self._patient.raw_decode(text, at)
        if self._twice:
            return RowRejected("key-twice", value=", ".join(self._twice), threshold="one value for a key"), end
        return value, end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            self._twice |= dict.fromkeys(key for key, value in pairs if json.dumps(value) != json.dumps(made[key]))
        return made


def _whole(digits: str) -> int | str:
    """The number, or its text if it has more digits than Python converts."""
    try:
        return int(digits)
    except ValueError:
        return digits


def read_list(file: IO[bytes], origin: str) -> Iterator[Any]:
    """Yield the items of the JSON list in `file`, in order. Memory holds at most one item and one chunk of text.

    Bytes that are not UTF-8 become lone surrogates, so that only the rows with such bytes are dropped later.

    Raises:
        InputError: the file holds no list, or broken JSON. The error names `origin`, line and column.
    """
    text = _open(file, origin)
    text.expect("[", "a list of rows")
    yield from _items(text)
    text.require_end("list")


def read_values(file: IO[bytes], origin: str) -> Iterator[Any]:
    """Yield the values of `file`, which are separated by line breaks. Memory is bounded as in `read_list`.

    Raises:
        InputError: the file holds broken JSON. The error names `origin`, line and column.
    """
    text = _open(file, origin)
    while text.peek():
        yield text.item()


def read_member(file: IO[bytes], origin: str, *, is_row: Callable[[Any], bool]) -> Iterator[Any]:
    """Yield the items of the list under MEMBER in the object in `file`. Memory is bounded as in `read_list`.

    Raises:
        InputError: the file holds no object with such a list, another list of rows too, or broken JSON. The error of
            broken JSON names line and column.
    """
    text = _open(file, origin)
    text.expect("{", "an object")
    found = False
    while True:
        key = text.item()
        text.expect(":", "a colon")
        if key == MEMBER:
            found = True
            text.expect("[", f"the list of `{MEMBER}`")
            yield from _items(text)
        elif _begins_with_row(text.item(), is_row):
            raise InputError(
                f"{origin} has rows under {key!r}, beside `{MEMBER}`.",
                remedy=f"Write all rows as one list under `{MEMBER}`, or each list into a file of its own.",
            )
        if text.expect(",}", "a comma or the end of the object") == "}":
            break
    text.require_end("object")
    if not found:
        raise InputError(f"{origin} has no `{MEMBER}`.", remedy=f"Write the rows as a list under `{MEMBER}`.")


def _begins_with_row(value: Any, is_row: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and bool(value) and is_row(value[0])


def first_values(beginning: str, most: int) -> list[Any]:
    """Up to `most` values at the beginning of a text that may be cut off."""
    values: list[Any] = []
    decoder, at = json.JSONDecoder(parse_int=_whole), 0
    while len(values) < most:
        at += len(beginning[at:]) - len(beginning[at:].lstrip())
        try:
            value, at = decoder.raw_decode(beginning, at)
        except (json.JSONDecodeError, RecursionError):
            break
        values.append(value)
    return values


def begins_member(beginning: str) -> bool:
    """Whether a text that may be cut off is an object with a list under MEMBER."""
    decoder, at = json.JSONDecoder(parse_int=_whole), 1
    if not beginning.startswith("{"):
        return False
    try:
        while True:
            key, at = decoder.raw_decode(beginning, _after(beginning, at, ","))
            at = _after(beginning, _after(beginning, at, ":"), "")
            if key == MEMBER:
                return beginning[at : at + 1] == "["
            _, at = decoder.raw_decode(beginning, at)
    except (json.JSONDecodeError, RecursionError):
        return False


def _after(text: str, at: int, separator: str) -> int:
    """The place behind blanks and, if it is there, a separator and blanks."""
    place = at + len(text[at:]) - len(text[at:].lstrip())
    return _after(text, place + 1, "") if separator and text[place : place + 1] == separator else place


def _open(file: IO[bytes], origin: str) -> "_Text":
    return _Text(origin, io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape").read)


def _items(text: "_Text") -> Iterator[Any]:
    """The items of a list whose opening bracket has been read."""
    if text.peek() == "]":
        text.expect("]", "the end of the list")
        return
    while True:
        yield text.item()
        if text.expect(",]", "a comma or the end of the list") == "]":
            return


class _Text:
    """The part of a file that is in memory, and the place of the parser in it."""

    def __init__(self, origin: str, read: Callable[[int], str]) -> None:
        self._origin, self._read = origin, read
        self._decoder = RowDecoder()
        self._text, self._at = "", 0
        self._line, self._column = 1, 1  # of the first character in memory

    def peek(self) -> str:
        """The next character that is not blank; "" at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in BLANK:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def expect(self, allowed: str, what: str) -> str:
        found = self.peek()
        if not found or found not in allowed:
            raise self._broken(self._at, f"{what} is expected, not {repr(found) if found else 'the end of the file'}")
        self._at += 1
        return found

    def require_end(self, what: str) -> None:
        """Raise InputError if anything follows: a second list would be left out without a word."""
        if self.peek():
            raise self._broken(self._at, f"text behind the end of the {what}")

    def item(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                # A number may continue in the next chunk, unless a character that ends it follows.
                if self._text[end : end + 1] in ENDS or not self._more():
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if not self._more():
                    too_long = len(self._text) - self._at > LONGEST_ROW
                    message = f"a value of more than {LONGEST_ROW:,} characters" if too_long else error.msg
                    raise self._broken(self._at if too_long else error.pos, message) from None
            except RecursionError:
                raise self._broken(self._at, "nested too deeply") from None

    def _more(self) -> bool:
        """Read the next chunk and drop the parsed text. False at the end of the file, or if an item is too long."""
        if len(self._text) - self._at > LONGEST_ROW:
            return False
        # Each read doubles the text in memory, so an item of n characters is parsed about log n times.
        read = self._read(max(CHUNK, len(self._text) - self._at))
        if read:
            self._line, self._column = self._position(self._at)
            self._text, self._at = self._text[self._at :] + read, 0
        return bool(read)

    def _position(self, at: int) -> tuple[int, int]:
        lines = self._text.count("\n", 0, at)
        if not lines:
            return self._line, self._column + at
        return self._line + lines, at - self._text.rfind("\n", 0, at)

    def _broken(self, at: int, message: str) -> InputError:
        line, column = self._position(at)
        return InputError(f"{self._origin}, line {line}, column {column}: broken JSON: {message}.", remedy=REMEDY)
