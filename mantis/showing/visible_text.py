"""Make text from outside safe to look at: no character of it moves a cursor, hides, or turns the text around."""

import re
import sys
import unicodedata
from functools import cache

KEPT = "\n\t\u200c\u200d"  # line ends, tabs, and the joiners that scripts and emoji need
HIDDEN_KINDS = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's general categories: controls, formats, surrogates, separators


@cache
def _hidden() -> re.Pattern[str]:
    """The characters that a reader cannot see, and that may change how others are seen."""
    found = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in HIDDEN_KINDS]
    return re.compile("[" + "".join(re.escape(chr(code)) for code in found if chr(code) not in KEPT) + "]")


def visible(text: str) -> str:
    """Write each hidden character as its code: a right-to-left override becomes `[U+202E]`."""
    if text.replace("\n", "").isprintable():  # then none is hidden, and the pattern is not needed
        return text
    return _hidden().sub(lambda match: f"[U+{ord(match[0]):04X}]", text)


def as_utf8(text: str) -> str:
    """Write halves of surrogate pairs as escapes, since UTF-8 cannot hold them."""
    return text.encode(errors="backslashreplace").decode()
