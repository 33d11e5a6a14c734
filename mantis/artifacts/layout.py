"""Every address in a store, once: the kinds of artifacts, and what lies beside them.

An address is a key relative to the store. Steps, lineage, garbage collection and the command line read this module.
No other module writes an address. To add a kind of artifact, add one line to `ArtifactKind`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from mantis.errors import ConfigError

FINGERPRINT = "fingerprint"
RECIPE = "recipe.yaml"  # of a run
COMMIT = "COMMIT"  # of a step of a checkpoint
PLACEHOLDER = re.compile(r"<(\w+)>")
FIRST_BELOW_HOST = 3  # part of `scheme://host/part`: a bucket's name is no folder
STEP_FOLDER = re.compile(r"step-(\d+)")


@dataclass(frozen=True, kw_only=True)
class AddressPattern:
    """The form of an address, such as `datasets/<subset>/<fingerprint>`."""

    text: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts that differ from address to address, in order."""
        return tuple(PLACEHOLDER.findall(self.text))

    @property
    def folder(self) -> str:
        """The folder of the store that holds the addresses."""
        return self.text.partition("/")[0]

    @property
    def root(self) -> str:
        """The longest prefix that all addresses share."""
        return self.text.partition("/<")[0]

    @property
    def depth(self) -> int:
        """The number of parts between slashes."""
        return self.text.count("/") + 1

    def fill(self, parts: Mapping[str, str]) -> str:
        """The address with these parts.

        Raises:
            ConfigError: a part is missing, is unknown, is empty, or holds a slash.
        """
        wrong = set(parts) ^ set(self.names) | {name for name, value in parts.items() if not value or "/" in value}
        if wrong:
            raise ConfigError(
                f"{', '.join(sorted(wrong))}: no address of the form {self.text} follows from {dict(parts)}.",
                remedy="Compare the step's `parts` with the line of its kind in mantis/artifacts/layout.py.",
            )
        return PLACEHOLDER.sub(lambda match: parts[match[1]], self.text)

    def parse(self, key: str) -> dict[str, str] | None:
        """The parts of an address by name; None if `key` has another form."""
        expected, found = self.text.split("/"), key.split("/")
        if len(expected) != len(found):
            return None
        pairs = list(zip(expected, found, strict=True))
        if any(value != word and not PLACEHOLDER.fullmatch(word) for word, value in pairs):
            return None
        return {word[1:-1]: value for word, value in pairs if PLACEHOLDER.fullmatch(word)}


class ArtifactKind(StrEnum):
    """A kind of artifact: the value of `kind` in its manifest, and the form of its address.

    A step fills in `<fingerprint>` by itself and the other parts from `StepSpec.parts`.
    """

    patterns: tuple[AddressPattern, ...]

    def __new__(cls, value: str, *forms: str) -> "ArtifactKind":
        """A kind whose artifacts have addresses of these forms."""
        kind = str.__new__(cls, value)
        kind._value_ = value
        kind.patterns = tuple(AddressPattern(text=form) for form in forms)
        return kind

    # Published data, benchmarks and weights. No step makes them, so garbage collection leaves them alone.
    SOURCE = (
        "source",
        "sources/<subset>",
        "sources/benchmarks/<benchmark>/<revision>",
        "models/bases/<base>/<revision>",
    )
    DATASET = "dataset", "datasets/<subset>/<fingerprint>"
    MIXTURE = "mixture", "mixtures/<fingerprint>"
    CONTAMINATION = "contamination", "contamination/<fingerprint>"
    CHECKPOINT = "checkpoint", "checkpoints/<fingerprint>"
    MODEL = "model", "models/<fingerprint>"
    # A model outside of the store that was evaluated: a folder, or a service. The artifact has no files.
    EXTERNAL_MODEL = "external-model", "external-models/<fingerprint>"
    EVALUATION = "evaluation", "evaluations/<model>/<benchmark>/<fingerprint>"
    REPORT = "report", "reports/<run>"
    DEPLOYMENT = "deployment", "deployments/<fingerprint>"

    @property
    def pattern(self) -> AddressPattern:
        """The form of the address; the first one where the kind has several."""
        return self.patterns[0]

    @property
    def folder(self) -> str:
        """The top folder of the store that holds the artifacts."""
        return self.pattern.folder

    @property
    def depth(self) -> int:
        """The number of parts of an address."""
        return self.pattern.depth

    def address(self, **parts: str) -> str:
        """The address with these parts; they choose the form where the kind has several.

        Raises:
            ConfigError: the parts are not those of a form.
        """
        fitting = [pattern for pattern in self.patterns if set(pattern.names) == set(parts)]
        return (fitting or [self.pattern])[0].fill(parts)

    def part(self, key: str, name: str) -> str:
        """The part `name` of an address of this kind.

        Raises:
            ConfigError: `key` is no such address.
        """
        for pattern in self.patterns:
            found = pattern.parse(key)
            if found is not None and name in found:
                return found[name]
        forms = " or ".join(pattern.text for pattern in self.patterns if name in pattern.names)
        raise ConfigError(f"{key!r} is not the address of a kind {self.value}.", remedy=f"The form is {forms}.")


RUN = AddressPattern(text="runs/<run>")
RESPONSES = AddressPattern(text="responses/<model>/<benchmark>/<identity>")
PUBLISHED, BENCHMARKS, BASES = ArtifactKind.SOURCE.patterns

TOP_FOLDERS = frozenset(
    {pattern.folder for kind in ArtifactKind for pattern in kind.patterns} | {RUN.folder, RESPONSES.folder}
)
# What steps make, with or without a manifest. Garbage collection looks through these.
COLLECTED = (*(kind.pattern for kind in ArtifactKind if kind is not ArtifactKind.SOURCE), RESPONSES)


def run_key(run: str, name: str = "") -> str:
    """The folder of a run's records, or an object in it."""
    return below(f"{RUN.root}/{run}", name)


def log_key(run: str) -> str:
    """The log of a run that `mantis run` started."""
    return run_key(run, "run.log")


def record_key(run: str, step: str) -> str:
    """The record of a step."""
    return f"{records_of(run)}/{step}.json"


def records_of(run: str) -> str:
    """The folder of the records of a run's steps."""
    return run_key(run, "steps")


def trials_of(run: str) -> str:
    """The folder of the trials of a sweep."""
    return run_key(run, "trials")


def trial_key(run: str, number: int) -> str:
    """A trial of a sweep."""
    return f"{trials_of(run)}/{number:05d}.json"


def report_key(run: str, name: str = "") -> str:
    """The report of a run, or a file of it."""
    return below(f"{ArtifactKind.REPORT.folder}/{run}", name)


def responses_key(model: str, benchmark: str, identity: str) -> str:
    """The journal of a model's raw responses; `model` and `identity` are fingerprints."""
    return RESPONSES.fill({"model": model, "benchmark": benchmark, "identity": identity})


def source_identity_key(state: str) -> str:
    """The remembered content hash of source files; `state` is the hash of their sizes and versions."""
    return f"{PUBLISHED.root}/identities/{state}"


def datasets_of(subset: str) -> str:
    """The folder of all datasets of a subset."""
    return f"{ArtifactKind.DATASET.folder}/{subset}"


def revisions_of_benchmark(benchmark: str) -> str:
    """The folder of all mirrored revisions of a benchmark."""
    return f"{BENCHMARKS.root}/{benchmark}"


def revisions_of_base(base: str) -> str:
    """The folder of all fetched revisions of published weights."""
    return f"{BASES.root}/{base}"


def mirrored_files(mirror: str) -> str:
    """The folder of a mirrored benchmark's own files."""
    return f"{mirror}/files"


def step_folder(step: int) -> str:
    """The folder of a checkpoint's step in the folder of its training: `step-00000100`."""
    return f"step-{step:08d}"


def commit_key(training: str, step: int) -> str:
    """The object that makes a folder of a step a checkpoint; `training`: the folder of the training."""
    return f"{training}/{step_folder(step)}/{COMMIT}"


def step_of(folder: str) -> int | None:
    """The step that a folder of a training holds; None if it holds no step."""
    match = STEP_FOLDER.fullmatch(folder.rpartition("/")[2])
    return int(match[1]) if match else None


def below(prefix: str, name: str) -> str:
    """The key of `name` below `prefix`; `prefix` itself where the name is empty."""
    return f"{prefix}/{name}" if name else prefix


def subset_of(dataset: str) -> str:
    """The subset of a dataset, from the dataset's address.

    Raises:
        ConfigError: the key is not that of a dataset.
    """
    return ArtifactKind.DATASET.part(dataset, "subset")


def benchmark_of(evaluation: str) -> str:
    """The benchmark of an evaluation, from the evaluation's address.

    Raises:
        ConfigError: the key is not that of an evaluation.
    """
    return ArtifactKind.EVALUATION.part(evaluation, "benchmark")


def possible_keys(uri: str) -> list[str]:
    """The keys that `uri` can hold, for a store with an unknown address: the longest first, often only one.

    A key begins with one of TOP_FOLDERS. There are several where the store lies below a folder with such a name.
    """
    parts = uri.split("/")
    places = range(FIRST_BELOW_HOST, len(parts) - 1)
    return ["/".join(parts[place:]).rstrip("/") for place in places if parts[place] in TOP_FOLDERS]
