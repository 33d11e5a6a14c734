"""Finds the answer in a response. Several metrics share these functions.

Every function is linear in the length of the response: each repetition in a pattern is bounded, or no other part of the
pattern can match the same characters.
"""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache

from components.evaluation.scoring.response_text import RECENT, CachedIfShort, plain
from components.evaluation.scoring.targets import LETTERS

# The leads of TIGER-AI-Lab/Mantis, mantis/benchmark/eval.py, in its order.
MANTIS_LEADS = ("final answer:", "the answer is", "answer:")

# A statement begins behind a lead: "the correct answer is", "Answer:", "the answer to this question would be". The
# words of the first pattern state an answer. Those of the second one may also state something else, so they come last.
_OF = (
    r"(?:\s{1,3}(?:to|for|of)\s{1,3}(?:the|this|that|your)\s{1,3}(?:\w{1,20}\s{1,3}){0,2}(?:question|problem|puzzle))?"
)
_BE = r"(?:is|was|(?:would|should|must|will)\s{1,3}be)"
_IS = rf"""(?:["'\])]?[ \t]{{0,3}}(?:{_BE}(?![a-z'])\s{{0,3}}:?|[:=]{{1,2}}|-\s|\n)|'s\s)"""
_FIRST = rf"(?<![a-z])(?:answer|ans){_OF}\.?{_IS}"
_CHINESE = r"\u7b54\u6848(?:\u662f|\u4e3a|\u70ba)?\s?:?|(?:\u6211\u9009|\u9009\u62e9)\s?:?"
NOUNS = ("choice", "option", "solution", "response", "prediction", "selection", "letter", "result", "conclusion")
VERBS = ("choose", "select", "pick", "say")
_NOUN = rf"(?:{'|'.join(NOUNS)})"
_VERB = rf"(?:i|we)(?:'d|'ll|\s{{1,3}}would|\s{{1,3}}will)?\s{{1,3}}(?:{'|'.join(VERBS)}|go\s{{1,3}}with)"
LEADS = (
    re.compile(rf"{_FIRST}|{_CHINESE}", re.IGNORECASE),
    re.compile(rf"(?<![a-z])(?:{_NOUN}{_OF}{_IS}|{_VERB}(?![a-z]))", re.IGNORECASE),
)
# Every match of a lead in ASCII text holds one of these words. A search for them is far faster than the pattern.
LEAD_WORDS = (("ans",), (*NOUNS, *VERBS, "go"))

# A letter by itself at the beginning of a statement, in brackets or quotation marks or bare.
OPTION = re.compile(
    r"""[\s"':=>_-]*(?:(?:is|be|the|option|Option|choice|Choice|letter|clearly|definitely|likely|most|probably)\s{1,3}){0,4}"""
    r"""[\s"'_]{0,3}(?P<open>[(\[<]?)\s?["']?(?P<letter>[A-Za-z])(?!\w)["']?\s?(?P<close>[)\]>]?)["']?"""
)
ENDED = re.compile(r"\s*(?:$|\n|[,;!?/&]|\s-{1,2}>?\s|->|[.:](?:(?=\s|$)|(?<=[A-Z][.:])))")
GOES_ON = re.compile(r"\s+(?:is|because|since|as|due)\b")
DENIED = re.compile(r"""[\s)"'\]]{0,3}(?:(?:(?:is|was|are|seems)\s{1,3})?(?:not|wrong|incorrect|false)|isn't)\b""")
REASON = re.compile(r"\b(?:because|since|as|due|given|rather|instead)\b", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
SEPARATORS = " \t.:,;)]>\"'_-("

# Other letters behind a stated one. A and I need brackets or a conjunction, since without them they are words.
FURTHER = re.compile(
    r"(?P<denied>\b(?:not|[Nn]ot|than|unlike)\s{1,3}(?:option\s{1,3})?)?"
    r"(?:(?<!\w)\((?P<bracketed>[A-Za-z])\)|(?<![\w'.-])(?P<bare>[B-HJ-Z])(?![\w'-])"
    r"|(?:\bor|\band|[,/&])\s{0,3}(?P<joined>[A-Za-z])(?=[.,;)]|\s*$))"
)
# Letters that a text names without stating them at its beginning: "It is (B)", "I think option B", "B is correct".
MENTION = re.compile(
    r"(?P<denied>\b(?:not|than|unlike|neither|nor)\s{1,3})?(?:"
    r"(?<!\w)[(\[]\s?(?P<bracketed>[A-Za-z])\s?[)\]]"
    r"|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer|[Ll]etter)s?\s{1,3}[\"'(\[]?(?P<named>[A-Z])(?![\w'])"
    r"|(?<![\w'])(?P<bare>[A-Z])(?=\s{1,3}(?:is|seems|must\s{1,3}be|would\s{1,3}be)\s{1,3}(?:the\s{1,3})?"
    r"(?:right|correct|best|most|answer))"
    r"|(?:,|\band|\bor|/|&)\s{0,3}[\"'(\[]?(?P<joined>[A-Z])(?![\w']))"
)
# "Option B is the correct choice", at the end of a discussion of all options.
AFFIRMED = re.compile(
    r"(?<![\w'])(?P<letter>[A-Z])[)\"'\]]{0,2}\s{1,3}is\s{1,3}(?:therefore\s{1,3})?(?:the\s{1,3})?(?:right|correct|best)(?!\w)"
)
LAST_WORD = re.compile(
    r"\b(?:is|be|say|choose|select|pick|guess|with|[Ss]o|[Tt]herefore|[Tt]hus|[Hh]ence|[Ii]t's),?\s{1,3}[\"']?([A-Z])[\"'.!]{0,3}$"
)
SHORT_SENTENCE = re.compile(
    r"(?:(?:so|therefore|thus|hence|i think|i believe|i would say|i'd say),?\s{1,3})?"
    r"(?:it's|(?:it|this|that|they|these)\s{1,3}(?:is|are|must\s{1,3}be|would\s{1,3}be))\s{1,3}(.{1,400})",
    re.IGNORECASE,
)
NEGATION = re.compile(r"\b(?:not|no|cannot|neither|never)\b|n't\b", re.IGNORECASE)
ARTICLE = re.compile(r"(?:(?:a|an|the|definitely|clearly|probably|likely)\s{1,3})+(?=\S)")
BARE_LETTER = re.compile(r"""\s*["'(_]{0,2}([A-Za-z])[)"'_]{0,2}\.?\s*""")
SEVERAL = ""  # the place of a letter where a statement names several options
STATEMENTS = 64  # leads that are looked at, from the last one: more would be noise


def after_lead(response: str) -> str:
    """The text after the first of MANTIS_LEADS that occurs, or the whole response if none does."""
    lowered = response.lower()
    for lead in MANTIS_LEADS:
        place = lowered.find(lead)
        if place >= 0:
            return response[place + len(lead) :]
    return response


def stated(response: str) -> str:
    """The last answer that the response states: one line, without markup and full stop."""
    text = plain(response)
    said = next((said for said in statements(text) if said), text)
    line = said.split("\n", 1)[0].strip().strip("\"'").strip()
    return line.removesuffix(".").strip().strip("\"'").strip()


def strict_option(response: str, options: Sequence[str]) -> str | None:
    """The letter of the option that the response states; None if it states no option or several.

    Of several statements with a lead ("the answer is"), the last one counts. Without a lead, the response must begin or
    end with a letter by itself, be an option's text, or name one option's letter and no other one.
    """
    return _strict_option(response, tuple(options))


@lru_cache(maxsize=RECENT)
def _strict_option(response: str, options: tuple[str, ...]) -> str | None:
    known = LETTERS[: len(options)]
    alone = BARE_LETTER.fullmatch(response) if len(response) < 16 else None
    if alone:
        return alone[1].upper() if alone[1].upper() in known else None
    text, texts = plain(response), _texts(options)
    exact = _letter_of_text(text, texts)
    if exact is not None:
        return exact
    for said in statements(text):
        letter = _statement(said, known, texts)
        if letter is not None:
            return letter or None
    for rule in (_by_affirmation, _by_line, _by_mention, _by_text, _by_last_sentence):
        letter = rule(text, known, texts)
        if letter is not None:
            return letter or None
    return None


def single_bracket(response: str, letters: str) -> str | None:
    """The only one of `letters` that the response names as "(X)"; None if it names none or several."""
    named = [letter for letter in letters if f"({letter})" in response]
    return named[0] if len(named) == 1 else None


@CachedIfShort
def letter_of(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of the option that equals `text`; None if no option or several do."""
    same = [place for place, option in enumerate(options) if option == text]
    return LETTERS[same[0]] if len(same) == 1 else None


def statements(text: str) -> Iterator[str]:
    """The texts behind the leads, each up to the next lead: the last one first, those of the first pattern first."""
    lowered = (
        text.lower() if text.isascii() else None
    )  # other texts may hold a Chinese lead, or a letter such as \u017f
    for pattern, words in zip(LEADS, LEAD_WORDS, strict=True):
        if lowered is not None and not any(word in lowered for word in words):
            continue
        places = deque((found.span() for found in pattern.finditer(text)), maxlen=STATEMENTS)
        end = len(text)
        for start, begin in reversed(places):
            said = text[begin:end]
            # "Examine each option:" begins a list, where "answer:" states one in the next line.
            if pattern is LEADS[0] or not said.lstrip(" \t").startswith("\n"):
                yield said.strip()
            end = start


def _statement(said: str, known: str, texts: tuple[str, ...]) -> str | None:
    """The letter that a statement begins with, or that of its text; SEVERAL if it names several, else None."""
    found = OPTION.match(said)
    letter = "" if found is None else found["letter"].upper()
    if found is None or letter not in known:
        return _text_at_start(said, texts)
    rest = said[found.end() :]
    if DENIED.match(rest):
        return None
    own = texts[known.index(letter)]
    behind = _sentence(rest.split("\n", 1)[0].lstrip(SEPARATORS))
    if "(" not in behind:
        behind = behind.rstrip(")] ")  # the end of "B (dog)"
    bracketed = bool(found["open"] or found["close"])
    goes_on = found["letter"].isupper() and GOES_ON.match(said, found.end("letter"))
    ended = ENDED.match(said, found.end("letter")) or ENDED.match(rest)
    if not (bracketed or ended or goes_on or _normal(behind) == own):
        return _text_at_start(said, texts)
    other = _letter_of_text(behind, texts)
    if other not in (None, letter):
        return SEVERAL
    # A sentence behind "B." explains. It only counts if it names one more answer.
    explains = rest.lstrip(")]\"' ").startswith((".", "\n")) and not re.match(r"(?:or|and)\b", behind)
    if explains and BARE_LETTER.fullmatch(behind) is None:
        return letter
    line = rest.split("\n", 1)[0]
    return SEVERAL if _further(line, known) - {letter} else letter


def _text_at_start(said: str, texts: tuple[str, ...]) -> str | None:
    """The letter of the text that is the first sentence, or its part before a comma ("No, there are two")."""
    sentence = _sentence(said)
    whole = _letter_of_text(sentence, texts)
    first, comma, behind = sentence.partition(",")
    if whole is not None or not comma:
        return whole
    letter = _letter_of_text(first, texts)
    others = {_letter_of_text(part, texts) for part in re.split(r",|\bor\b|\band\b", behind)} - {None, letter}
    return SEVERAL if letter is not None and others else letter


def _by_affirmation(text: str, known: str, _: tuple[str, ...]) -> str | None:
    """The only letter that the text calls right; SEVERAL if it calls several right."""
    affirmed = {found["letter"] for found in AFFIRMED.finditer(text)} & set(known)
    return SEVERAL if len(affirmed) > 1 else next(iter(affirmed), None)


def _by_line(text: str, known: str, texts: tuple[str, ...]) -> str | None:
    """The letter at the beginning of the first or the last line, or in the last sentence by itself.

    The lines between them only count against it. A discussion of all options has lines for each of them.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return None
    starts = {letter for line in set(lines) if (letter := _line_start(line, known, texts)) is not None}
    last = lines[-1].rstrip()
    cut_off = max((found.end() for found in SENTENCE_END.finditer(last[:-1])), default=0)
    ending = BARE_LETTER.fullmatch(last, cut_off) if cut_off else None
    if ending and ending[1].upper() in known and not starts:
        return ending[1].upper()
    outer = {_line_start(line, known, texts) for line in (lines[0], lines[-1])} - {None}
    if not outer:
        return None
    return SEVERAL if len(starts) > 1 else starts.pop()


def _line_start(line: str, known: str, texts: tuple[str, ...]) -> str | None:
    found = OPTION.match(line)
    if found is None or found["letter"].upper() not in known:
        return None
    letter = _statement(line, known, texts)
    if letter and _further(REASON.split(line[found.end() :], maxsplit=1)[0], known) - {letter}:
        return SEVERAL
    return letter


def _by_mention(text: str, known: str, _: tuple[str, ...]) -> str | None:
    """The only letter that the text names in brackets, as "option X", or as "X is correct"."""
    named, all_letters = set(), set()
    for found in MENTION.finditer(text):
        letter = (found["bracketed"] or found["named"] or found["bare"] or found["joined"]).upper()
        if letter not in known or found["denied"] or DENIED.match(text, found.end()):
            continue
        all_letters.add(letter)
        if found["joined"] is None:
            named.add(letter)
    if not named:
        return None
    return SEVERAL if len(all_letters) > 1 else named.pop()


def _by_text(text: str, _: str, texts: tuple[str, ...]) -> str | None:
    """The option whose text begins the response ("No, there are two")."""
    return _text_at_start(text, texts)


def _by_last_sentence(text: str, known: str, texts: tuple[str, ...]) -> str | None:
    """The letter that ends the last sentence ("So it is B."), or the text of a short sentence ("It is a dog.")."""
    last = text[text.rfind("\n") + 1 :].strip()
    cut_off = max((found.end() for found in SENTENCE_END.finditer(last[:-1])), default=0)
    last = last[cut_off:].strip()
    if NEGATION.search(last):
        return None
    ending = LAST_WORD.search(last)
    if ending:
        return ending[1] if ending[1] in known and not _further(last[: ending.start(1)], known) else None
    whole = SHORT_SENTENCE.fullmatch(text)
    return _letter_of_text(whole[1], texts) if whole else None


def _further(text: str, known: str) -> set[str]:
    """Letters of options that the text names, up to a reason, without those that it denies."""
    found = set()
    for mention in FURTHER.finditer(REASON.split(text, maxsplit=1)[0]):
        letter = (mention["bracketed"] or mention["bare"] or mention["joined"]).upper()
        if letter in known and not mention["denied"]:
            found.add(letter)
    return found


def _sentence(text: str) -> str:
    found = SENTENCE_END.search(text)
    return text if found is None else text[: found.start()]


@lru_cache(maxsize=65_536)
def _texts(options: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_normal(plain(option)) for option in options)


def _letter_of_text(text: str, texts: tuple[str, ...]) -> str | None:
    if len(text) > 2 * max(map(len, texts), default=0) + 16:
        return None
    # An option that is an image alone has no text, so that no text can name it.
    same = [place for place, each in enumerate(texts) if each and each == _normal(text)]
    return LETTERS[same[0]] if len(same) == 1 else None


def _normal(text: str) -> str:
    """The text in lower case, without article, quotation marks, and full stop."""
    bare = text.strip(" \t\n\"'").removesuffix(".").strip(" \t\n\"'").casefold()
    return ARTICLE.sub("", bare, count=1) if ARTICLE.match(bare) else bare
