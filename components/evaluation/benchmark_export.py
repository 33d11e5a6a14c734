"""Writes the questions of a benchmark for another engine. `mantis rescore` takes the answers back.

The folder holds, besides `images/`:

- `requests.jsonl`: a line {"id", "benchmark", "skill", "prompt", "images", "max_new_tokens"} per question.
  `prompt` holds an `<image>` mark for each of `images`, whose paths are relative to the folder.
- `openai.jsonl`, if a model is named: the same requests in the batch form of OpenAI's API, with images inside.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from components.evaluation.benchmarks.benchmark_catalog import Benchmark
from components.evaluation.evaluator import question_of
from components.evaluation.readers.benchmark_reader import BenchmarkSample
from mantis.config.evaluation_settings import EvaluationSettings
from mantis.errors import InputError
from mantis.generation.answerer import Question
from mantis.generation.chat_messages import data_uri, encoded_picture, openai_request
from mantis.generation.sample_images import Picture
from mantis.progress import Progress
from mantis.store.base import concurrently

REQUESTS, OPENAI, IMAGES = "requests.jsonl", "openai.jsonl", "images"
AT_ONCE = 64  # questions whose images are written at the same time


@dataclass(frozen=True, kw_only=True)
class BenchmarkExport:
    """A benchmark's questions, and the folder that receives them. `model` empty: no requests in OpenAI's form."""

    benchmark: Benchmark
    settings: EvaluationSettings
    folder: Path
    model: str = ""

    def write(self, samples: Sequence[BenchmarkSample]) -> list[Path]:
        """Write images and requests, and return the paths of the JSONL files. An existing file is replaced at the end.

        Raises:
            InputError: the folder cannot be written.
        """
        names = [REQUESTS, *([OPENAI] if self.model else [])]
        progress = Progress(label=f"Writing {self.benchmark.title}", total=len(samples), unit="requests")
        try:
            (self.folder / IMAGES).mkdir(parents=True, exist_ok=True)
            with ExitStack() as opened:
                files = {
                    name: opened.enter_context((self.folder / f".{name}").open("w", encoding="utf-8")) for name in names
                }
                for start in range(0, len(samples), AT_ONCE):
                    block = samples[start : start + AT_ONCE]
                    self._write_block(block, files)
                    progress.advance(len(block))
            for name in names:
                (self.folder / f".{name}").replace(self.folder / name)
        except OSError as error:
            raise InputError(
                f"{error.filename or self.folder} cannot be written: {error.strerror}.", remedy="Name another folder."
            ) from None
        return [self.folder / name for name in names]

    def _write_block(self, block: Sequence[BenchmarkSample], files: Mapping[str, IO[str]]) -> None:
        questions = [question_of(sample, sample.pictures, self.settings) for sample in block]
        for lines in concurrently(lambda pair: dict(self._lines(*pair)), list(zip(block, questions, strict=True))):
            for name, line in lines.items():
                files[name].write(json.dumps(line, ensure_ascii=False) + "\n")

    def _lines(self, sample: BenchmarkSample, question: Question) -> Iterator[tuple[str, dict[str, Any]]]:
        """The line of each file."""
        yield (
            REQUESTS,
            {
                "id": sample.id,
                "benchmark": self.benchmark.name,
                "skill": sample.skill,
                "prompt": question.prompt,
                "images": [self._image(picture) for picture in question.pictures],
                "max_new_tokens": self.benchmark.resolved.decoding.max_new_tokens,
            },
        )
        if self.model:
            yield (
                OPENAI,
                {
                    "custom_id": f"{self.benchmark.name}/{sample.id}",
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": openai_request(question, self.benchmark.resolved.decoding, model=self.model, link=data_uri),
                },
            )

    def _image(self, picture: Picture) -> str:
        """Write the image, and return its path. Equal images share a file."""
        data, suffix = encoded_picture(picture)
        path = f"{IMAGES}/{picture.sha256}{suffix}"
        if not (self.folder / path).exists():
            temporary = self.folder / IMAGES / f".{picture.sha256}-{id(data)}"
            temporary.write_bytes(data)
            temporary.replace(self.folder / path)
        return path
