import unicodedata

import pytest

from mantis.showing.visible_text import as_utf8, visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[31mb", "a[U+001B][31mb"),
        ("evil\u202egpj.exe", "evil[U+202E]gpj.exe"),
        ("\u200eleft\u200fright\u2066", "[U+200E]left[U+200F]right[U+2066]"),
        ("zero\u200bwidth\ufeff", "zero[U+200B]width[U+FEFF]"),
        ("\U000e0041 tag", "[U+E0041] tag"),
        ("c1\x9b31m", "c1[U+009B]31m"),
        ("line\u2028\u2029\r", "line[U+2028][U+2029][U+000D]"),
        ("half \ud83d", "half [U+D83D]"),
    ],
)
def test_hidden_characters_are_written_as_codes(text: str, expected: str) -> None:
    assert visible(text) == expected


def test_text_that_can_be_seen_stays_as_it_is() -> None:
    text = "naïve 漢字 עברית العربية 👩\u200d👧 می\u200cخواهم\n\ttab"
    assert visible(text) == text


def test_no_control_or_format_character_is_left() -> None:
    everything = "".join(map(chr, range(0x110000)))
    kinds = {
        unicodedata.category(char)
        for char in visible(everything).translate(dict.fromkeys(map(ord, "\n\t\u200c\u200d")))
    }
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_half_of_a_pair_becomes_utf8() -> None:
    assert as_utf8("a\ud83d").encode() == b"a\\ud83d"
