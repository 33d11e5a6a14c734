"""Values as people read them, the same in the page and in its Markdown twin."""

from collections.abc import Sequence

from components.reporting.collect.report_schema import Answer, StepTime, Straggler
from mantis.runs.records import State

ABSENT = "–"
IMAGE_MARK = "<image>"
LONGEST_TEXT = 600  # characters of a question or response
SIGNIFICANT = 3

CONTAMINATION = (
    "Images of the benchmarks that are also images of training samples: with the same bytes, or alike by a perceptual "
    "hash (at most 24 of 256 bits differ), which small or plain images do not have. Benchmarks that were held in by "
    "training on another split of theirs are expected to share some."
)

CAUSES = {  # of goodput: what training spends its time on
    "step": "training steps",
    "data": "waiting for data",
    "save": "saving checkpoints",
    "queue": "waiting in a queue",
    "start": "starting up",
    "resume": "loading a checkpoint",
    "rework": "repeating lost steps",
    "finish": "finishing",
    "other": "other",
}

AGGREGATIONS = {"macro": "mean of its skills", "micro": "mean of its samples"}


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal, without its sign."""
    return ABSENT if share is None else f"{100 * share:.1f}"


def whole_percent(share: float | None) -> str:
    """A share as a whole percentage, with its sign."""
    return ABSENT if share is None else f"{100 * share:.0f} %"


def decimal(value: float | None) -> str:
    """A figure that already is in percent."""
    return ABSENT if value is None else f"{value:.1f}"


def points(value: float) -> str:
    """Percentage points with their sign."""
    return f"{value:+.1f}".replace("-", "−")


def probability(p: float | None) -> str:
    """A p value; empty where there is none."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2f}" if p >= 0.01 else f"p = {p:.3f}"


def count(value: float | None) -> str:
    """A whole number with separators."""
    return ABSENT if value is None else f"{value:,.0f}"


def straggler(found: Straggler | None) -> str:
    """The rank that the others wait for."""
    return ABSENT if found is None else f"rank {found.rank}, {found.slowdown:.2f} times the median for the same work"


def short(value: float | None) -> str:
    """A number in three significant digits: 1.05 M, 40.1 k, 173, 0.052, 1.2e-3."""
    if value is None:
        return ABSENT
    size = abs(float(f"{value:.{SIGNIFICANT}g}"))  # rounded first: 999,999 is 1 M, not 1000 k
    for limit, divisor, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if size >= limit:
            return f"{value / divisor:.{SIGNIFICANT}g} {unit}"
    if size >= 1000:
        return f"{value:,.0f}"
    if 0 < size < 1e-2:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.{SIGNIFICANT}g}"


def duration(seconds: float | None) -> str:
    """Seconds as 0.4 s, 12 s, 3 min 20 s or 2 h 05 min."""
    if seconds is None:
        return ABSENT
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s".removesuffix(" 00 s")
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min".removesuffix(" 00 min")


def round_duration(seconds: float) -> str:
    """A round duration as a tick of a scale: 0, 0.5 s, 30 s, 2 min, 3 h."""
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s" if seconds else "0"


def outcome(step: StepTime) -> str:
    """What became of a step, in a few words."""
    again = f", attempt {step.attempts}" if step.attempts > 1 else ""
    return {
        State.DONE: f"done{again}",
        State.REUSED: "was already there",
        State.FAILED: f"failed{again}: {step.reason}",
        State.STARTED: f"not ended{again}",
    }[step.state]


def question(answer: Answer) -> str:
    """The question with its image marks numbered as the images beside it, leading ones left out; bounded."""
    pieces = answer.question.split(IMAGE_MARK)
    numbered = [f"[{number}]{piece}" for number, piece in enumerate(pieces[1:], 1)]
    leading = 0
    while not pieces[leading].strip() and leading < len(pieces) - 1:
        leading += 1
    return shortened("".join([pieces[leading], *numbered[leading:]]))


def shortened(text: str) -> str:
    """At most LONGEST_TEXT characters."""
    text = text.strip()
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1].rstrip() + "…"


def mark(answer: Answer) -> str:
    """Whether the answer is right; one that scoring could make nothing of says so."""
    return "✓ Right" if answer.correct else "✗ Wrong" if answer.parsed else "✗ Not parsed"


def response(answer: Answer) -> str:
    """The response, or a word for none."""
    return shortened(answer.response) or "(empty)"


def joined(items: Sequence[str]) -> str:
    """Options as one line."""
    return shortened(" · ".join(items))
