"""Answers a file of questions, with the batches and the response cache of evaluation: for `mantis model predict`."""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from components.data.prepare.row_validator import RowResult, RowValidator, limits_of
from components.data.sources.find import find_sources, open_file
from components.data.sources.reading import reading_of
from components.data.sources.source import RowSource
from mantis.config.data_settings import DataSettings
from mantis.config.evaluation_settings import EvaluationSettings
from mantis.errors import ConfigError, InputError, MantisError
from mantis.generation.answerer import OpenModel, Question
from mantis.generation.answering_models import ChatModel, FamilyModel
from mantis.generation.cache.response_cache import ResponseCache
from mantis.generation.decoding import Decoding
from mantis.generation.sample_images import spooled_picture
from mantis.hashing import fingerprint
from mantis.progress import Progress
from mantis.store.base import ObjectStore

logger = logging.getLogger(__name__)

NOT_EXPRESSED = "question-not-expressed"  # reason of a row that the model's template or processor cannot take


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """The options of `mantis model predict`.

    Args:
        address: a file of rows, or a folder or URL that holds one subset.
        form: as `data.format`; empty finds the form.
        columns: as `data.columns`.
    """

    address: str
    form: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    decoding: Decoding


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One row of the result: its line, with the response, or the reason why no `question` was asked."""

    line: dict[str, Any]
    question: Question | None = None


def predict(store: ObjectStore, model: FamilyModel | ChatModel, request: PredictionRequest) -> list[Prediction]:
    """Answer every question of a file, in its order. Responses that `store` has are not generated again.

    Raises:
        ConfigError: the file is missing, or its form is unknown.
        InputError: no row of it is a question.
        EvaluationError: the model cannot answer.
    """
    settings = _data_settings(request)
    source = _source(request.address, settings)
    with tempfile.TemporaryDirectory(prefix="mantis-questions-") as temporary:
        spool = Path(temporary) / "pictures"
        spool.mkdir()
        opened = model.open(store, request.decoding, Path(temporary) / "model")
        results = _results(source, settings)
        rows = [_refusal(each) if each.row is None else _asked(each, spool, opened) for each in results]
        questions = [row.question for row in rows if row.question is not None]
        if not questions:
            reasons = sorted({str(row.line["reason"]) for row in rows})
            raise InputError(
                f"{request.address} ({source.described()}) holds no question ({', '.join(reasons) or 'no rows'}).",
                remedy="Write rows as for training; the last answer may be missing (docs/how-to/bring-your-data.md).",
            )
        cache = ResponseCache(
            store=store,
            settings=EvaluationSettings(),
            questions=f"file-{fingerprint(source.url)[:16]}",
            title=source.name,
            decoding=request.decoding,
            model=model,
        )
        progress = Progress(label=f"predict {source.name}", total=len(questions), unit="answers")
        answered = cache.responses(questions, progress.advance)
    logger.info("%s answers, %s of them new", f"{len(questions):,}", f"{answered.generated:,}")
    responses = iter(answered.responses)
    return [
        row if row.question is None else replace(row, line=row.line | {"response": next(responses)}) for row in rows
    ]


def _data_settings(request: PredictionRequest) -> DataSettings:
    return DataSettings(format=request.form or None, columns=dict(request.columns))


def _source(address: str, settings: DataSettings) -> RowSource:
    reading = reading_of(settings, questions=True)
    path = Path(address).expanduser()
    if "://" not in address and not path.is_dir():
        return open_file(path, reading)
    found = find_sources(address if "://" in address else str(path), reading)
    if len(found) > 1:
        raise ConfigError(
            f"{address} holds {len(found)} subsets: {', '.join(found)}.", remedy="Name the folder of one, or a file."
        )
    return next(iter(found.values()))


def _results(source: RowSource, settings: DataSettings) -> Iterator[RowResult]:
    validator = RowValidator(source.name, source, limits_of(settings, source.name), os.cpu_count() or 1, questions=True)
    return validator.outcomes(lambda _: True)


def _asked(result: RowResult, spool: Path, opened: OpenModel[Any]) -> Prediction:
    """The question of a checked row and the beginning of its line, or the refusal of the model's template."""
    assert result.row is not None
    row, asked = result.row, result.row.conversation
    pictures = tuple(spooled_picture(image.data, image.path, spool) for image in row.images)
    *history, last = asked.turns
    question = Question(
        id=asked.id, prompt=last.content, pictures=pictures, history=tuple(history), system=asked.system
    )
    images = [{"path": picture.path, "sha256": picture.sha256} for picture in pictures]
    line: dict[str, Any] = {"row": row.number, "id": asked.id, "question": last.content, "images": images}
    if asked.reference:
        line["answer"] = asked.reference
    repairs = [{"reason": entry.reason, "value": entry.value} for entry in result.ledger]
    if repairs:
        line["repairs"] = repairs
    try:
        opened.prepare([question])
    except MantisError as error:
        reason = {"reason": NOT_EXPRESSED, "value": error.problem, "threshold": error.remedy}
        return Prediction(line=line | {"response": None} | reason)
    return Prediction(line=line, question=question)


def _refusal(result: RowResult) -> Prediction:
    entry = result.ledger[-1]
    return Prediction(
        line={
            "row": result.number,
            "id": entry.id,
            "response": None,
            "reason": entry.reason,
            "value": entry.value,
            "threshold": entry.threshold,
        }
    )
