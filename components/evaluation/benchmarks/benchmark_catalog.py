"""Loads benchmarks (benchmarks/*.yaml, docs/how-to/add-a-benchmark.md) and decoding profiles (decoding.yaml)."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.evaluation.scoring.score_response import METRICS
from components.evaluation.scoring.targets import Kind
from mantis.errors import ConfigError, EvaluationError, did_you_mean
from mantis.hashing import fingerprint

FOLDER = Path(__file__).parent
DECODING = Path(__file__).parent.parent / "generation" / "decoding.yaml"
DEFAULT_PROMPT = "mantis"


class _BenchmarkData(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Skill(_BenchmarkData):
    """A skill that a group of samples tests.

    `chance` is the accuracy of guessing. None means that each sample has a chance of 1 / its number of options.
    """

    label: str
    chance: Annotated[float, Field(ge=0, le=1)] | None = None


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
    - `images`, `options`: one column with a list, or several columns.
    - `answer`: an option's letter, its index from 0, or its text; `answer_is` decides.
    - `answers`: a list with the answers of several people, instead of `answer`.
    - `details`: columns that only the metric needs, by the metric's name for them.
    """

    id: str | None = "id"
    skill: str | Derived | None = "skill"
    question: str = "question"
    hint: str | None = None
    images: str | tuple[str, ...] = "images"
    options: str | tuple[str, ...] | None = "options"
    answer: str | None = "answer"
    answer_is: Literal["letter", "index", "text"] = "letter"
    answers: str | None = None
    kind: Derived | None = None
    unit: Derived | None = None
    details: dict[str, str] = Field(default_factory=dict)


class BenchmarkHub(_BenchmarkData):
    """A dataset on the Hugging Face hub. `files` are glob patterns. `revision` null means that none is pinned."""

    dataset: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None
    files: tuple[str, ...] = Field(min_length=1)


class PaperRow(_BenchmarkData):
    """A published accuracy, in percent, on `split`."""

    model: str
    accuracy: float
    source: str
    split: str


class Prompt(_BenchmarkData):
    """Template of the user's turn.

    `templates` has a text for each kind of answer. It may hold these fields:
    - {question}: the row's question.
    - {options}: a line per option, made from `option` with its {letter} and {text}.
    - {hint}: the text `hint` with the row's hint in it. `hints` maps the row's hint to another text first. A row
      without a hint leaves {hint} empty.
    """

    templates: dict[Kind, str]
    option: str = " ({letter}) {text}"
    hint: str = "{hint}\n"
    hints: dict[str, str] | None = None


class Benchmark(_BenchmarkData):
    """One file of benchmarks/. `name` is the file's stem, `prompt` the name of the chosen prompt profile."""

    name: str
    title: str
    layout: Literal["json", "parquet", "mvbench", "mementos"] = "json"
    hub: BenchmarkHub | None = None
    file: str = "test.json"
    split: str = "test"
    fields: Fields = Fields()
    kind: Kind
    metric: str
    aggregation: Literal["macro", "micro"] | None = None
    prompt: str
    prompts: dict[str, Prompt] = Field(min_length=1)
    skills: dict[str, Skill] = Field(min_length=1)
    paper: tuple[PaperRow, ...] = ()

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        if self.metric not in METRICS:
            raise ValueError(f"metric = {self.metric!r} is not known; metrics: {', '.join(sorted(METRICS))}")
        if (self.layout == "json") != (self.hub is None):
            raise ValueError("layout json takes no `hub`; every other layout needs one")
        return self

    def template(self) -> Prompt:
        """The template of the chosen prompt profile."""
        return self.prompts[self.prompt]

    def comparable(self, row: PaperRow) -> bool:
        """Whether a published result is on the split that is read here. Only then can the two be compared."""
        return row.split == self.split

    def revision(self) -> str:
        """Hash of the fields that decide samples and scores. Titles, labels and published results are left out."""
        told = self.model_dump(mode="json", exclude={"title", "paper", "prompts", "skills"})
        chance = {name: skill.chance for name, skill in self.skills.items()}
        return fingerprint({**told, "prompts": self.template().model_dump(mode="json"), "skills": chance})


class Decoding(_BenchmarkData):
    """A named decoding profile. Decoding is always greedy."""

    name: str
    max_new_tokens: Annotated[int, Field(ge=1)]


def known_benchmarks() -> list[str]:
    """Names of all benchmarks, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_benchmark(name: str, *, prompt: str = DEFAULT_PROMPT) -> Benchmark:
    """Load the benchmark of this name with the prompt profile `prompt`.

    Raises:
        ConfigError: the benchmark or the profile does not exist. The error lists all names.
        EvaluationError: the benchmark's file is wrong. The error names the field.
    """
    if name not in known_benchmarks():
        raise ConfigError(
            f"{name!r} is no benchmark.",
            remedy=f"{did_you_mean(name, known_benchmarks())}Choose one of {', '.join(known_benchmarks())}.",
        )
    return parse_benchmark((FOLDER / f"{name}.yaml").read_text(), name=name, prompt=prompt)


def parse_benchmark(text: str, *, name: str, prompt: str = DEFAULT_PROMPT) -> Benchmark:
    """Parse a benchmark from YAML text. It raises the errors of `load_benchmark`."""
    raw = _mapping(text, f"benchmarks/{name}.yaml")
    try:
        benchmark = Benchmark.model_validate({**raw, "name": name, "prompt": prompt, "paper": _paper(raw)})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        found = f"{field} = {first['input']!r}: " if field else ""
        raise EvaluationError(
            f"benchmarks/{name}.yaml: {found}{first['msg'].removeprefix('Value error, ')}.",
            remedy="Correct the field. docs/how-to/add-a-benchmark.md explains each one.",
        ) from None
    if prompt not in benchmark.prompts:
        raise ConfigError(
            f"evaluation.prompt = {prompt!r} is no prompt profile of {name}.",
            remedy=f"Choose one of {', '.join(benchmark.prompts)}.",
        )
    return benchmark


def load_decoding(name: str) -> Decoding:
    """Load the decoding profile of this name.

    Raises:
        ConfigError: the profile does not exist. The error lists all names.
    """
    profiles = _mapping(DECODING.read_text(), "decoding.yaml")
    if name not in profiles:
        raise ConfigError(
            f"evaluation.decoding = {name!r} is not a decoding profile.",
            remedy=f"Choose one of {', '.join(sorted(profiles))}.",
        )
    return Decoding.model_validate({**profiles[name], "name": name})


def _paper(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """Flatten the tables of a file, [{source, split, accuracy: {model: percent}}], into rows."""
    tables = raw.get("paper") or []
    return [
        {"model": model, "accuracy": accuracy, "source": table.get("source"), "split": table.get("split")}
        for table in tables
        for model, accuracy in table.get("accuracy", {}).items()
    ]


def _mapping(text: str, origin: str) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise EvaluationError(f"{origin} is not YAML: {error}.", remedy="Correct the file.") from None
    if not isinstance(raw, dict):
        raise EvaluationError(f"{origin} holds {type(raw).__name__}, not a mapping.", remedy="Correct the file.")
    return raw
