"""Benchmarks and decoding profiles as data: benchmarks/*.yaml (docs/how-to/add-a-benchmark.md) and decoding.yaml."""

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
    """What a group of samples tests, and the accuracy of guessing; None: one in so many options, by sample."""

    label: str
    chance: Annotated[float, Field(ge=0, le=1)] | None = None


class Derived(_BenchmarkData):
    """A value taken from a column: mapped by `values`, cut out by `pattern` (its one group), or modulo a number."""

    column: str
    values: dict[str, str] | None = None
    pattern: str | None = None
    modulo: int | None = None


class Fields(_BenchmarkData):
    """Where the published rows hold what a sample needs; a name of a column unless said otherwise.

    Without `id` rows are numbered; without `skill` all samples are of the one skill that there is. `images` and
    `options` may be several columns. `answer` is an option's letter, its index from 0 or its text, as `answer_is` says;
    `answers` instead holds everybody's answer. `details` are columns that the metric alone asks for.
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
    """A dataset on the Hugging Face hub; `files` are patterns below it. `revision` null: could not be looked up."""

    dataset: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None
    files: tuple[str, ...] = Field(min_length=1)


class PaperRow(_BenchmarkData):
    """A published result, in percent, on `split`."""

    model: str
    accuracy: float
    source: str
    split: str


class Prompt(_BenchmarkData):
    """How a sample becomes the user's turn.

    A template per kind of answer holds {question} and, for a choice, {options}: a line `option` for each with {letter}
    and {text}. {hint} is `hint` with the row's hint in it, or what `hints` has for it; nothing where there is none.
    """

    templates: dict[Kind, str]
    option: str = " ({letter}) {text}"
    hint: str = "{hint}\n"
    hints: dict[str, str] | None = None


class Benchmark(_BenchmarkData):
    """One file of benchmarks/; `name` is the file's name and `prompt` the profile that was picked."""

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
            raise ValueError(f"metric = {self.metric!r} is not known; there are {', '.join(sorted(METRICS))}")
        if (self.layout == "json") != (self.hub is None):
            raise ValueError("hub goes with every layout but json")
        return self

    def template(self) -> Prompt:
        """The picked profile."""
        return self.prompts[self.prompt]

    def comparable(self, row: PaperRow) -> bool:
        """Whether a published result is of the split that is read here: another split's gets no verdict."""
        return row.split == self.split

    def revision(self) -> str:
        """Hash of what decides samples and scores; titles, labels and published rows do not."""
        told = self.model_dump(mode="json", exclude={"title", "paper", "prompts", "skills"})
        chance = {name: skill.chance for name, skill in self.skills.items()}
        return fingerprint({**told, "prompts": self.template().model_dump(mode="json"), "skills": chance})


class Decoding(_BenchmarkData):
    """A named way to generate; greedy."""

    name: str
    max_new_tokens: Annotated[int, Field(ge=1)]


def known_benchmarks() -> list[str]:
    """Names of all benchmarks that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_benchmark(name: str, *, prompt: str = DEFAULT_PROMPT) -> Benchmark:
    """The benchmark of this name, asked with the prompt profile `prompt`.

    Raises:
        ConfigError: there is none, or no such profile; names those that exist.
        EvaluationError: its file is wrong; names the field.
    """
    if name not in known_benchmarks():
        raise ConfigError(
            f"{name!r} is no benchmark.",
            remedy=f"{did_you_mean(name, known_benchmarks())}Benchmarks: {', '.join(known_benchmarks())}.",
        )
    return parse_benchmark((FOLDER / f"{name}.yaml").read_text(), name=name, prompt=prompt)


def parse_benchmark(text: str, *, name: str, prompt: str = DEFAULT_PROMPT) -> Benchmark:
    """A benchmark from YAML text; see `load_benchmark` for the errors."""
    raw = _mapping(text, f"benchmarks/{name}.yaml")
    try:
        benchmark = Benchmark.model_validate({**raw, "name": name, "prompt": prompt, "paper": _paper(raw)})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        found = f"{field} = {first['input']!r}: " if field else ""
        raise EvaluationError(
            f"benchmarks/{name}.yaml: {found}{first['msg'].removeprefix('Value error, ')}.",
            remedy="docs/how-to/add-a-benchmark.md explains each field.",
        ) from None
    if prompt not in benchmark.prompts:
        raise ConfigError(
            f"evaluation.prompt = {prompt!r} is no prompt profile of {name}.",
            remedy=f"Profiles: {', '.join(benchmark.prompts)}.",
        )
    return benchmark


def load_decoding(name: str) -> Decoding:
    """The decoding profile of this name.

    Raises:
        ConfigError: there is none; names those that exist.
    """
    profiles = _mapping(DECODING.read_text(), "decoding.yaml")
    if name not in profiles:
        raise ConfigError(
            f"evaluation.decoding = {name!r} is not a decoding profile.",
            remedy=f"Profiles: {', '.join(sorted(profiles))}.",
        )
    return Decoding.model_validate({**profiles[name], "name": name})


def _paper(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows from tables as the files write them: [{source, split, accuracy: {model: percent}}]."""
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
