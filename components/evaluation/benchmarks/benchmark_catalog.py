"""Loads benchmarks (benchmarks/*.yaml, docs/how-to/add-a-benchmark.md), each with the profile that asks it."""

import re
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.evaluation.profiles.profile_catalog import ResolvedProfile, load_profile, resolve_profile
from components.evaluation.profiles.prompt_template import Prompt
from components.evaluation.scoring.score_response import METRICS
from components.evaluation.scoring.targets import Kind
from mantis import synthetic
from mantis.artifacts.held_out import BENCHMARK
from mantis.config.bounded_yaml import parse_yaml
from mantis.config.evaluation_settings import DEFAULT_PROFILE, is_benchmark_file
from mantis.config.field_types import NAME_PATTERN
from mantis.errors import ConfigError, EvaluationError, MantisError, did_you_mean
from mantis.hashing import fingerprint
from mantis.models.conversation import IMAGE_MARK
from mantis.store.opening import open_store

FOLDER = Path(__file__).parent
RUNS = Path(__file__).parent.parent / "published_conditions.yaml"
# Fields that decide neither samples nor scores. The content of the files has its own hash in every result.
UNTOLD: dict[str, Any] = {
    **dict.fromkeys(("title", "paper", "prompts", "skills", "source", "stored"), True),
    **dict.fromkeys(("profile", "family", "differs", "example"), True),
    "hub": {"moved_from"},
}


class _BenchmarkData(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Skill(_BenchmarkData):
    """A skill that a group of samples tests.

    `chance` is the accuracy of guessing. None means that each sample has the chance of a guess among its options.
    `guesses` are the answers that a guess takes where a sample without options has one of them as its right answer.
    `group` names the group of skills that a grouped average takes as one.
    """

    label: str
    chance: Annotated[float, Field(ge=0, le=1)] | None = None
    group: str | None = None
    guesses: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _states_one_of_them(self) -> Self:
        if self.chance is not None and self.guesses:
            raise ValueError("`chance` and `guesses` exclude each other; the guesses give the chance")
        return self


class Derived(_BenchmarkData):
    """A value derived from a column, in three optional steps.

    1. `pattern` cuts out the text of its only group.
    2. `modulo` takes the remainder.
    3. `values` maps the text.
    """

    column: str
    values: dict[str, str] | None = None
    pattern: str | None = None
    modulo: int | None = None


class Fields(_BenchmarkData):
    """The columns of the published rows that make a sample. Each field is a column's name, unless stated below.

    - `id`: null numbers the rows.
    - `skill`: null puts every sample into the benchmark's first skill.
    - `question`: null for rows whose images hold the question.
    - `mark`: no column, but the text that stands for an image in the questions of the file.
    - `images`, `options`: one column with a list, or several columns.
    - `answer`: an option's letter, its index from 0, or its text; `answer_is` decides.
    - `answers`: a list with the answers of several people, instead of `answer`.
    - `details`: columns that only the metric needs, by the metric's name for them.
    - `cluster`: samples with the same value share a clip or an image. Samples that share an image with the same bytes
      need none. A file without the column is read, too.
    """

    id: str | None = "id"
    skill: str | Derived | None = "skill"
    question: str | None = "question"
    mark: str = IMAGE_MARK
    hint: str | None = None
    images: str | tuple[str, ...] = "images"
    options: str | tuple[str, ...] | None = "options"
    answer: str | None = "answer"
    answer_is: Literal["letter", "index", "text"] = "letter"
    answers: str | None = None
    kind: Derived | None = None
    unit: Derived | None = None
    cluster: str | None = None
    details: dict[str, str] = Field(default_factory=dict)


class BenchmarkRows(_BenchmarkData):
    """The rows of a file that belong to the benchmark: those with one of `values` in `column`."""

    column: str
    values: tuple[str, ...] = Field(min_length=1)


class BenchmarkVideo(_BenchmarkData):
    """The video of a row, in the layout `videos`.

    `path` is its path with at least one folder; {} stands for the value of `column`. `frames` evenly spaced frames
    are the images of the sample.
    """

    column: str
    path: Annotated[str, Field(pattern=r"/.*\{\}")]
    frames: Annotated[int, Field(ge=1)] = 8


class BenchmarkHub(_BenchmarkData):
    """A dataset on the Hugging Face hub. `files` are glob patterns. `revision` null means that none is pinned.

    `moved_from` names the datasets that held the same files before, the newest first.
    """

    dataset: str
    moved_from: tuple[str, ...] = ()
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None
    files: tuple[str, ...] = Field(min_length=1)

    @property
    def first_name(self) -> str:
        """The oldest name of the dataset. Hashes are made of it, so a move changes no address."""
        return (self.dataset, *self.moved_from)[-1]


class PaperRow(_BenchmarkData):
    """A published accuracy, in percent, on the `samples` of `split`, and how it was made.

    `scoring` is `official`, `strict` or the reader of the answers, `prompt` a profile, `decoding` for example
    `greedy 512`. None means that the source does not state it.
    """

    model: str
    accuracy: float
    source: str
    split: str
    samples: int | None = None
    scoring: str | None = None
    prompt: str | None = None
    decoding: str | None = None
    layout: str | None = None


class Benchmark(_BenchmarkData):
    """One YAML file. `name` is the file's stem.

    `profile` is the profile that the recipe names, for models of `family`. `resolved` holds its values for this
    benchmark. `differs` lists what differs from the official run, `example` is a made-up row.

    A published benchmark has `hub`. Your own benchmark has its files in the folder or store URL `source`, else in
    `<evaluation.source>/<name>/`. `stored` is the revision of its files that the run's store holds.
    """

    name: str
    title: str
    layout: Literal["json", "parquet", "tsv", "videos", "mvbench", "mementos"] = "json"
    hub: BenchmarkHub | None = None
    file: str = "test.json"
    files: tuple[str, ...] = ()
    source: str = ""
    stored: str = ""
    split: str = "test"
    fields: Fields = Fields()
    only: BenchmarkRows | None = None
    video: BenchmarkVideo | None = None
    kind: Kind
    metric: str
    aggregation: Literal["macro", "micro", "grouped"] | None = None
    profile: str
    family: str = ""
    prompts: dict[str, Prompt] = Field(min_length=1)
    skills: dict[str, Skill] = Field(min_length=1)
    paper: tuple[PaperRow, ...] = ()
    differs: tuple[str, ...] = ()
    example: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for metric in (self.metric, *(prompt.metric for prompt in self.prompts.values() if prompt.metric is not None)):
            if metric not in METRICS:
                raise ValueError(f"metric = {metric!r} is not known; metrics: {', '.join(sorted(METRICS))}")
        without = [name for name, skill in self.skills.items() if skill.group is None]
        if self.aggregation == "grouped" and without:
            raise ValueError(f"aggregation grouped needs a group in every skill; {', '.join(without)} has none")
        if self.layout == "json" and (self.hub is not None or self.files):
            raise ValueError("layout json takes no `hub` and no `files`; `file` names its only file")
        if self.layout != "json" and (self.hub is None) == (not self.files):
            raise ValueError(
                f"layout {self.layout} needs `files`, patterns such as [test.parquet]; a published dataset has `hub` "
                "instead"
            )
        if (self.layout == "videos") != (self.video is not None):
            raise ValueError("layout videos needs `video`, and no other layout takes it")
        if self.hub is not None and self.source:
            raise ValueError("a published dataset takes no `source`; `hub` names its files")
        return self

    @property
    def generated(self) -> bool:
        """Whether the demo makes its samples."""
        return self.name in synthetic.BENCHMARKS

    @property
    def patterns(self) -> tuple[str, ...]:
        """Glob patterns of the files with its rows, in order."""
        return self.hub.files if self.hub is not None else self.files or (self.file,)

    @property
    def pinned(self) -> str | None:
        """The only revision of its files that may be read from a store; None if any may."""
        return self.hub.revision if self.hub is not None else self.stored or None

    @model_validator(mode="after")
    def _each_kind_has_a_template(self) -> Self:
        kinds = [self.kind] if self.fields.kind is None else list((self.fields.kind.values or {}).values())
        for name, prompt in self.prompts.items():
            lacking = [kind for kind in kinds if kind not in prompt.templates]
            if lacking:
                raise ValueError(f"prompts.{name}.templates has no text for {', '.join(lacking)}")
        return self

    @cached_property
    def resolved(self) -> ResolvedProfile:
        """The values of the profile for this benchmark and this family."""
        return resolve_profile(self.profile, self.prompts, self.family)

    def comparable(self, row: PaperRow) -> bool:
        """Whether some score of this benchmark can be compared with a published result."""
        return not self.why_not_comparable(row)

    def why_not_comparable(self, row: PaperRow) -> str:
        """The reason why no score can be compared with a published result; empty if one can."""
        if row.split != self.split:
            return f"they are on {row.split}"
        stated = {
            "number of samples": row.samples,
            "scoring": row.scoring,
            "prompt": row.prompt,
            "decoding": row.decoding,
            "layout": row.layout,
        }
        lacking = [name for name, value in stated.items() if value is None]
        return f"the source does not state {' or '.join(lacking)}" if lacking else ""

    def shown_chance(self, skill: str) -> str:
        """The chance of a skill in words."""
        described = self.skills[skill]
        if described.chance is not None:
            return f"{described.chance:.1%}".replace(".0%", "%")
        if described.guesses:
            return f"a guess among {', '.join(described.guesses)}"
        return "a guess among the options" if self.fields.options is not None else "none, as nothing can be guessed"

    def revision(self) -> str:
        """Hash of the fields that decide samples and scores. Titles, labels and published results are left out."""
        told = self.model_dump(mode="json", exclude=UNTOLD)
        for later in ("files", "only", "video"):  # benchmarks without these fields keep their hash
            if not told[later]:
                del told[later]
        if self.fields.mark == IMAGE_MARK:
            del told["fields"]["mark"]
        if self.hub is not None:
            told["hub"]["dataset"] = self.hub.first_name
        chance = {name: list(skill.guesses) or skill.chance for name, skill in self.skills.items()}
        return fingerprint({**told, "profile": self.resolved.identity(), "skills": chance})


def known_benchmarks() -> list[str]:
    """Names of all benchmarks, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_benchmark(
    name: str, *, profile: str = DEFAULT_PROFILE, family: str = "", own: Mapping[str, Any] | None = None
) -> Benchmark:
    """Load a benchmark that is asked with `profile`. Some profiles have other values for a model `family`.

    `name` is one of these:
    - the name of a benchmark of `own`, a recipe's `evaluation.own_benchmarks`;
    - the name of a shipped benchmark;
    - the path or store URL of a YAML file (`is_benchmark_file`). The file's stem becomes the name. `source` is then
      absolute: as the file says, else the folder of the same name beside it, else empty.

    Raises:
        ConfigError: the benchmark, the file or the profile does not exist; or a file has a name that is taken.
        EvaluationError: the benchmark's file is wrong. The error names the field.
    """
    if own and name in own:
        return _from_mapping(own[name], f"evaluation.own_benchmarks.{name}", name, (profile, family))
    if is_benchmark_file(name):
        raw = read_benchmark_file(name)
        return _from_mapping(raw, name, own_name(name), (profile, family))
    if name not in known_benchmarks():
        raise ConfigError(
            f"{name!r} is no benchmark.",
            remedy=f"{did_you_mean(name, known_benchmarks())}Choose one of {', '.join(known_benchmarks())}, or name a "
            "YAML file.",
        )
    return parse_benchmark((FOLDER / f"{name}.yaml").read_text(), name=name, profile=profile, family=family)


def listed_benchmarks(files: Iterable[str] = ()) -> tuple[list[Benchmark], list[MantisError]]:
    """Load every shipped benchmark and `files`. A wrong file gives an error in the second list, and stops no other."""
    loaded, problems = [], []
    for name in (*known_benchmarks(), *files):
        try:
            loaded.append(load_benchmark(name))
        except MantisError as error:
            problems.append(error)
    return loaded, problems


def own_name(file: str) -> str:
    """The name of the benchmark in `file`: its stem.

    Raises:
        ConfigError: the stem is no valid name, or a shipped benchmark has it.
    """
    name = file.rpartition("/")[2].rpartition(".")[0]
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(
            f"{file}: {name!r} is no valid name of a benchmark.",
            remedy="Rename the file. Use lower case letters, digits, `-`, `_` and `.`, e.g. my-benchmark.yaml.",
        )
    if name in (*known_benchmarks(), BENCHMARK):
        raise ConfigError(
            f"{file}: {name!r} is the name of a shipped benchmark.", remedy="Rename the file, and its folder with it."
        )
    return name


def read_benchmark_file(file: str) -> dict[str, Any]:
    """Read the YAML file of a benchmark from a path or a store URL. Its `source` becomes absolute.

    Raises:
        ConfigError: the file cannot be read.
        EvaluationError: the file is no YAML mapping.
    """
    try:
        if "://" in file:
            folder, _, name = file.rpartition("/")
            text = open_store(folder).get(name).decode()
        else:
            folder = str(Path(file).expanduser().absolute().parent)
            text = (Path(folder) / Path(file).name).read_text()
    except (OSError, UnicodeDecodeError, MantisError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "problem", None) or error
        raise ConfigError(
            f"{file!r} cannot be read as a benchmark's file: {reason}.",
            remedy="Name a YAML file that this machine can read. docs/how-to/add-a-benchmark.md shows one.",
        ) from None
    raw = _mapping(text, file)
    return {**raw, "source": _source(raw, folder, own_name(file))} if raw.get("hub") is None else raw


def _source(raw: Mapping[str, Any], folder: str, name: str) -> str:
    """The absolute folder of the samples: as the file says, else the folder of its name beside it, else empty."""
    told = str(raw.get("source") or "")
    if "://" in told:
        return told
    if "://" in folder:
        return f"{folder}/{told or name}"
    found = Path(folder) / Path(told or name).expanduser()
    return str(found) if told or found.is_dir() else ""


def parse_benchmark(text: str, *, name: str, profile: str = DEFAULT_PROFILE, family: str = "") -> Benchmark:
    """Parse a benchmark from YAML text. It raises the errors of `load_benchmark`."""
    origin = f"benchmarks/{name}.yaml"
    return _from_mapping(_mapping(text, origin), origin, name, (profile, family))


def _from_mapping(raw: Any, origin: str, name: str, asked: tuple[str, str]) -> Benchmark:
    profile, family = asked
    load_profile(profile)
    if not isinstance(raw, Mapping):
        raise EvaluationError(f"{origin} holds {type(raw).__name__}, not a mapping.", remedy="Correct the file.")
    given = {"name": name, "profile": profile, "family": family, "paper": _paper(raw)}
    try:
        benchmark = Benchmark.model_validate({**raw, **given})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        found = f"{field} = {first['input']!r}: " if field else ""
        raise EvaluationError(
            f"{origin}: {found}{first['msg'].removeprefix('Value error, ')}.",
            remedy="Correct the field. docs/how-to/add-a-benchmark.md explains each one.",
        ) from None
    return benchmark.model_copy(update={"metric": benchmark.resolved.metric or benchmark.metric})


def _paper(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Flatten the tables of a file, [{source, split, ..., accuracy: {model: percent}}], into rows.

    A row has the values of its table, then those of published_conditions.yaml (`runs`), then those of `models`.
    """
    runs = _published_conditions()
    return [
        {"model": model, "accuracy": accuracy, "source": None, "split": None}
        | {name: value for name, value in table.items() if name not in ("accuracy", "runs", "models")}
        | runs.get(str(table.get("runs")), {}).get(model, {})
        | (table.get("models") or {}).get(model, {})
        for table in raw.get("paper") or []
        for model, accuracy in table.get("accuracy", {}).items()
    ]


@cache
def _published_conditions() -> dict[str, Any]:
    return _mapping(RUNS.read_text(), RUNS.name)


def _mapping(text: str, origin: str) -> dict[str, Any]:
    try:
        raw = parse_yaml(text)
    except yaml.YAMLError as error:
        raise EvaluationError(f"{origin} is not YAML: {error}.", remedy="Correct the file.") from None
    if not isinstance(raw, dict):
        raise EvaluationError(f"{origin} holds {type(raw).__name__}, not a mapping.", remedy="Correct the file.")
    return raw
