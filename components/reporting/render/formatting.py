"""Format values for readers, in the same way in HTML and Markdown."""

from collections.abc import Sequence

from components.reporting.collect.report_schema import Answer, StepTime, Straggler, Training
from mantis.artifacts.scores import CONTROLS_CHOOSE, Score
from mantis.runs.records import State
from mantis.statistics import Paired

ABSENT = "–"
IMAGE_MARK = "<image>"
LONGEST_TEXT = 600  # characters of a question or response
SIGNIFICANT = 3

FIDELITY = (
    "This run reproduces a published model. Each row is a known difference from the official system, with its reason, "
    "its size as measured, and the setting of the recipe that removes it."
)
CONTAMINATION = (
    "Images of the benchmarks that also occur in training samples. They have the same bytes, or similar perceptual "
    "hashes (at most 24 of 256 bits differ). Small or plain images have no such hash. If training used another split "
    "of a benchmark, some shared images are expected."
)

CAUSES = {  # categories of goodput: the activities that take up the time of training
    "step": "training steps",
    "data": "waiting for data",
    "evaluate": "computing the held-out loss",
    "save": "saving checkpoints",
    "queue": "waiting in a queue",
    "start": "starting up",
    "resume": "loading a checkpoint",
    "rework": "repeating lost steps",
    "finish": "finishing",
    "other": "other",
}

INTERVAL = (
    "The 95 % interval is a bootstrap of units. Units that share an image or a clip are drawn together. If all units "
    "have the same score, the interval is the exact binomial one."
)
CONTROLS = f"{CONTROLS_CHOOSE} It should stay at chance."
CONTROL_P = (
    "The p of a control is one-sided: the probability that a guess has as many right units. It is corrected for the "
    "rows of the benchmark. A control with p below 0.001, divided by the number of benchmarks, counts as above chance."
)

TESTS = (
    "The test is mid-p McNemar for right and wrong answers. It is a paired t-test for averages, for partial scores, "
    "and where samples share an image or a clip. The p values of a table are corrected together, by Holm's method. "
    "Samples for a point: with that many samples, the test sees a difference of one point in 80 % of comparisons."
)

LOSSES = (
    "The losses of all runs, each averaged over stretches of steps. A step of a run with a larger batch holds more "
    "samples. Losses on other data cannot be compared."
)

RANKING = (
    "The mean accuracy weighs each benchmark the same. Every pair of runs is tested on the samples that both answered. "
    "Holm's method corrects the p values of all pairs together, so the choice of the best run needs no other "
    "correction. The tests cover the choice of samples, not the chance of training. Runs that differ in the seed alone "
    "show that chance."
)
RANKED = ("Run", "Values", "Held-out loss", "Mean accuracy", "Best run minus this run")
EFFECTS = (
    "A row compares two values of a field over the pairs of runs that agree in all other fields. The difference is the "
    "mean over the pairs, and the last column has that of each pair. If the pairs differ in the seed alone, their "
    "spread shows the chance of training. The p values are corrected together, by Holm's method."
)
EFFECT = ("Field", "Value", "Rather than", "Difference", "Of each pair")
TRIALS = (
    "The sampler suggests the values of a trial from the held-out losses of the trials before it. A trial is pruned if "
    "its held-out loss is above the median of the complete trials at the same step. A pruned trial has no scores."
)
TRIAL = ("Trial", "Run", "Values", "State", "Held-out loss")

AGGREGATIONS = {"macro": "mean of its skills", "micro": "mean of its samples", "grouped": "mean of groups of skills"}


def official(score: Score) -> str:
    """The official accuracy, and by name that of each variant of the metric."""
    variants = [f"{name} {percent(share)}" for name, share in score.variants.items()]
    return percent(score.official) + (f" ({', '.join(variants)})" if variants else "")


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal, without the percent sign."""
    return ABSENT if share is None else f"{100 * share:.1f}"


def whole_percent(share: float | None) -> str:
    """A share as a whole percentage, with the percent sign."""
    return ABSENT if share is None else f"{100 * share:.0f} %"


def verdicts(margin: float) -> str:
    """What each verdict on a published figure means, for a margin in points."""
    return (
        f"The verdict is reproduced if the whole interval lies within {margin:g} points of the published figure. It is "
        "above or below if the figure lies outside of the interval, and undecided if the interval is too wide. A "
        "figure that was made in another way is not comparable. A score is not parsed if most responses hold no "
        "answer. The verdict is no paper figure if nothing was published about the model."
    )


def interval(score: Score) -> str:
    """The 95 % interval in percent, and half of its width in points."""
    return f"{percent(score.low)}–{percent(score.high)} (±{score.half_width:.1f})"


def decimal(value: float | None) -> str:
    """A figure that is in percent already, with one decimal."""
    return ABSENT if value is None else f"{value:.1f}"


def points(value: float) -> str:
    """Percentage points with plus or minus sign."""
    return f"{value:+.1f}".replace("-", "−")


def probability(p: float | None) -> str:
    """A p value; empty for None."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2f}" if p >= 0.01 else f"p = {p:.3f}"


def needed(paired: Paired) -> str:
    """The number of samples that show one point, with a comma before it; empty if it is unknown."""
    return "" if paired.needed is None else f", {paired.needed:,} samples for a point"


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 skill, 2 skills."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return ABSENT if value is None else f"{value:,.0f}"


def straggler(found: Straggler | None) -> str:
    """The slowest rank, for which the other ranks wait."""
    return (
        ABSENT
        if found is None
        else f"rank {found.rank}, {found.slowdown:.2f} times the median rank's time for the same work"
    )


def short(value: float | None) -> str:
    """A number with three significant digits: 1.05 M, 40.1 k, 173, 0.052, 1.2e-3."""
    if value is None:
        return ABSENT
    size = abs(float(f"{value:.{SIGNIFICANT}g}"))  # rounded first, so that 999,999 becomes 1 M and not 1000 k
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
    """Format seconds as 0.4 s, 12 s, 3 min 20 s or 2 h 05 min."""
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


def setup_rows(training: Training) -> list[tuple[str, str]]:
    """Names and values of a training's machines, software, settings, cost and best step."""
    setup, best = training.setup, training.best
    hours = "GPU-hours" if setup.gpus else "Rank-hours"
    nodes = "" if setup.nodes is None else f" on {counted(setup.nodes, 'node')}"
    rows = [
        ("Hardware", setup.hardware or ABSENT),
        ("Ranks", f"{count(setup.ranks)}{nodes}"),
        ("Software", setup.software or ABSENT),
        *setup.settings,
        ("Samples per second", short(training.samples_per_second)),
        (hours, short(setup.device_hours)),
    ]
    if setup.price is not None:
        rows.append(("Cost", f"{short(setup.cost)}, at {setup.price:g} for each of the {hours}"))
    if best is not None:
        end = "; training ended there early" if best.stopped_early else ""
        rows.append(
            ("Lowest held-out loss", f"{short(best.loss)} after step {best.step:,}, of {best.samples:,} samples")
        )
        rows.append(("Last held-out loss", f"{short(best.last_loss)}{end}"))
    return rows


def round_duration(seconds: float) -> str:
    """Format a round duration as a tick of a scale: 0, 0.5 s, 30 s, 2 min, 3 h."""
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s" if seconds else "0"


def outcome(step: StepTime) -> str:
    """The outcome of a step, in a few words."""
    again = f", attempt {step.attempts}" if step.attempts > 1 else ""
    return {
        State.DONE: f"done{again}",
        State.REUSED: "result reused from an earlier run",
        State.FAILED: f"failed{again}: {step.reason}",
        State.STARTED: f"not finished{again}",
    }[step.state]


def question(answer: Answer) -> str:
    """The question, shortened, with its image marks numbered like the images beside it; leading marks are left out."""
    pieces = answer.question.split(IMAGE_MARK)
    numbered = [f"[{number}]{piece}" for number, piece in enumerate(pieces[1:], 1)]
    leading = 0
    while not pieces[leading].strip() and leading < len(pieces) - 1:
        leading += 1
    return shortened("".join([pieces[leading], *numbered[leading:]]))


def shortened(text: str) -> str:
    """Cut a text to at most LONGEST_TEXT characters."""
    text = text.strip()
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1].rstrip() + "…"


def mark(answer: Answer) -> str:
    """Whether the answer is right, wrong, or could not be parsed."""
    return "✓ Right" if answer.correct else "✗ Wrong" if answer.parsed else "✗ Not parsed"


def response(answer: Answer) -> str:
    """The response, or a word for an empty one."""
    return shortened(answer.response) or "(empty)"


def scoring(score: Score) -> str:
    """The scoring of the accuracy, and of the responses that were not parsed."""
    return score.conditions.get("scoring", "")


def joined(items: Sequence[str]) -> str:
    """Options on one line."""
    return shortened(" · ".join(items))
