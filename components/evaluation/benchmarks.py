"""Benchmarks and decoding profiles as data: benchmarks/*.yaml and decoding.yaml."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.errors import ConfigError, EvaluationError
from components.core.hashing import fingerprint

FOLDER = Path(__file__).with_name("benchmarks")
DECODING = Path(__file__).with_name("decoding.yaml")


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Skill(_Data):
    """What a group of samples tests, and the accuracy of guessing."""

    label: str
    chance: Annotated[float, Field(ge=0, le=1)]


class Fields(_Data):
    """Names under which the benchmark's file holds what a sample needs."""

    id: str = "id"
    skill: str = "skill"
    question: str = "question"
    images: str = "images"
    options: str = "options"
    answer: str = "answer"


class PaperRow(_Data):
    """A published result, in percent."""

    model: str
    accuracy: float
    source: str


class Benchmark(_Data):
    """One file of benchmarks/; `name` is the file's name.

    `prompt` holds {question} and, for multiple choice, {options}: a line ` (A) text` for each.
    """

    name: str
    title: str
    file: str
    fields: Fields = Fields()
    answer_type: Literal["short", "multiple-choice"]
    metric: Literal["accuracy"]
    prompt: str
    skills: dict[str, Skill] = Field(min_length=1)
    paper: tuple[PaperRow, ...]

    def revision(self) -> str:
        """Hash of everything the file says."""
        return fingerprint(self.model_dump(mode="json"))


class Decoding(_Data):
    """A named way to generate; greedy."""

    name: str
    max_new_tokens: Annotated[int, Field(ge=1)]


def known_benchmarks() -> list[str]:
    """Names of all benchmarks that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_benchmark(name: str) -> Benchmark:
    """The benchmark of this name.

    Raises:
        ConfigError: there is none; names those that exist.
        EvaluationError: its file is wrong; names the field.
    """
    if name not in known_benchmarks():
        raise ConfigError(
            f"evaluation.benchmarks names {name!r}, which is no benchmark.",
            remedy=f"Benchmarks: {', '.join(known_benchmarks())}.",
        )
    return parse_benchmark((FOLDER / f"{name}.yaml").read_text(), name=name)


def parse_benchmark(text: str, *, name: str) -> Benchmark:
    """A benchmark from YAML text; see `load_benchmark` for the errors."""
    raw = _mapping(text, f"benchmarks/{name}.yaml")
    try:
        return Benchmark.model_validate({**raw, "name": name})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise EvaluationError(
            f"benchmarks/{name}.yaml: {field} = {first['input']!r}: {first['msg']}.",
            remedy="Compare with benchmarks/demo-multi.yaml; components/evaluation/benchmarks.py explains each field.",
        ) from None


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


def _mapping(text: str, origin: str) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise EvaluationError(f"{origin} is not YAML: {error}.", remedy="Correct the file.") from None
    if not isinstance(raw, dict):
        raise EvaluationError(f"{origin} holds {type(raw).__name__}, not a mapping.", remedy="Correct the file.")
    return raw
