"""A tiny Qwen2.5-VL, which is none of our families, answers through its chat template."""

import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, get_ident
from typing import Any

import pytest
import torch

from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from components.evaluation.readers.benchmark_reader import read_benchmark
from mantis.config.evaluation_settings import EvaluationSettings
from mantis.errors import EvaluationError, InputError
from mantis.generation.answerer import Question
from mantis.generation.answering_models import model_in_folder
from mantis.generation.chat_generator import ChatGenerator, ChatProcessor, OpenChatModel, open_chat_model
from mantis.generation.decoding import Decoding
from tests.helpers.waiting import HANG_SECONDS

DECODING = Decoding(max_new_tokens=8)
COLOURS = ("red", "blue", "green", "dark grey")


@pytest.fixture(scope="module")
def opened(chat_model_folder: Path) -> OpenChatModel:
    return open_chat_model(chat_model_folder, DECODING)


@pytest.fixture
def questions(eval_source: Path) -> list[Question]:
    samples = read_benchmark(eval_source / "demo-multi", load_benchmark("demo-multi"), spool=eval_source).samples
    return [
        Question(id=sample.id, prompt=sample.prompt, pictures=sample.pictures, allowed=()) for sample in samples[:24]
    ]


def ask(opened: OpenChatModel, questions: list[Question], **settings: int) -> tuple[dict[str, str], list[int]]:
    """Responses by question, and the sizes of the batches."""
    plan = opened.plan(opened.prepare(questions), EvaluationSettings(**settings))
    generator, sizes = opened.load("cpu"), []
    original = ChatGenerator._generate

    def counted(self: Any, batch: Any, inputs: Any) -> Any:
        sizes.append(len(batch))
        return original(self, batch, inputs)

    generator._generate = counted.__get__(generator)  # type: ignore[method-assign]
    found = zip(plan, generator.answer(plan), strict=True)
    return {each.question.id: text for batch, texts in found for each, text in zip(batch, texts, strict=True)}, sizes


def test_batches_give_the_responses_of_single_questions(opened: OpenChatModel, questions: list[Question]) -> None:
    alone, single = ask(opened, questions, batch_tokens=32, batch_patches=1)
    together, sizes = ask(opened, questions)
    assert set(single) == {1}
    assert max(sizes) == 23  # one question has no image
    assert sum(sizes) == len(questions)
    assert together == alone
    assert len(set(alone.values())) > 10  # answers that are all alike would prove nothing


def test_costs_are_those_of_the_model_inputs(opened: OpenChatModel, questions: list[Question]) -> None:
    for prepared in opened.prepare(questions[:6]):
        inputs = opened.processor.inputs([prepared])
        seams = 2 * len(prepared.question.pictures)  # tokens that span the place of an image are counted apart
        assert abs(prepared.cost.tokens - inputs["input_ids"].shape[1]) <= seams
        patches = inputs["pixel_values"].numel() // (3 * 14 * 14) if prepared.question.pictures else 0
        assert prepared.cost.patches == patches


def test_restricted_questions_get_one_of_their_answers(opened: OpenChatModel, questions: list[Question]) -> None:
    mixed = [
        Question(id=each.id, prompt=each.prompt, pictures=each.pictures, allowed=COLOURS if number % 2 else ())
        for number, each in enumerate(questions[:10])
    ]
    responses, _ = ask(opened, mixed)
    assert {responses[each.id] for each in mixed if each.allowed} <= set(COLOURS)
    free, _ = ask(opened, questions[:10])
    assert all(responses[each.id] == free[each.id] for each in mixed if not each.allowed)


def test_a_model_that_ignores_padding_answers_one_by_one(
    opened: OpenChatModel, questions: list[Question], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    alone, _ = ask(opened, questions, batch_tokens=32, batch_patches=1)
    kind = type(opened.processor.processor)  # of every thread's copy
    original = kind.apply_chat_template

    def without_mask(*arguments: Any, **more: Any) -> Any:
        made = original(*arguments, **more)
        made["attention_mask"] = torch.ones_like(made["attention_mask"])
        return made

    monkeypatch.setattr(kind, "apply_chat_template", without_mask)
    with caplog.at_level(logging.WARNING):
        together, sizes = ask(opened, questions)
    assert set(sizes) == {1}
    assert "one question at a time (logits of a batch differ by" in caplog.text
    assert together == alone


def test_a_model_that_refuses_batches_answers_one_by_one(
    opened: OpenChatModel, questions: list[Question], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kind = type(opened.processor.processor)
    original = kind.apply_chat_template

    def one_only(processor: Any, chats: Any, **more: Any) -> Any:
        if len(chats) > 1:
            raise ValueError("one chat at a time")
        return original(processor, chats, **more)

    monkeypatch.setattr(kind, "apply_chat_template", one_only)
    _, sizes = ask(opened, questions[:6])
    assert set(sizes) == {1}
    assert "one question at a time (ValueError: one chat at a time)" in caplog.text


def test_a_response_ends_at_the_stop_tokens_of_the_profile(chat_model_folder: Path, questions: list[Question]) -> None:
    def responses(*stop: str) -> list[str]:
        opened = open_chat_model(chat_model_folder, Decoding(max_new_tokens=8, stop=stop))
        return list(ask(opened, questions[:6])[0].values())

    whole = responses()
    token = "s"
    assert any(token in text for text in whole)
    assert responses("end-of-text") == whole
    assert not any(token in text[:1] for text in responses(token))
    with pytest.raises(EvaluationError, match="<no-such-token>"):
        responses("<no-such-token>")


def copied(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


def test_a_folder_without_weights_or_configuration_is_refused(tmp_path: Path, chat_model_folder: Path) -> None:
    folder = copied(chat_model_folder, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no config\.json with \*\.safetensors"):
        model_in_folder(str(folder))


def test_missing_weights_are_not_made_up(tmp_path: Path, chat_model_folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(chat_model_folder, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "layers.1.mlp" in name)
    save_file({name: tensor for name, tensor in weights.items() if name != lost}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(EvaluationError, match="lacks 1 weights of its model"):
        open_chat_model(folder, DECODING).load("cpu")


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("config.json", '{"model_type": "llama"}', "no model that transformers can load"),
        ("config.json", '{"model_type": "unheard-of"}', "no model that transformers can load"),
        ("config.json", "{", "no model that transformers can load"),
        ("model.safetensors", "broken", "no model that transformers can load"),
        ("chat_template.jinja", None, "no chat template"),
        ("chat_template.jinja", "{{ messages | nonsense }}", "cannot express a question"),
    ],
)
def test_a_wrong_folder_is_explained(
    tmp_path: Path, chat_model_folder: Path, questions: list[Question], file: str, text: str | None, problem: str
) -> None:
    folder = copied(chat_model_folder, tmp_path / "model")
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)

    def use() -> None:
        opened = open_chat_model(folder, DECODING)
        opened.prepare(questions[:2])
        opened.load("cpu")

    with pytest.raises(EvaluationError, match=problem):
        use()


def test_code_in_a_folder_is_not_run(tmp_path: Path, chat_model_folder: Path) -> None:
    folder = copied(chat_model_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own-model", "auto_map": {"AutoConfig": "own.Own", "AutoProcessor": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass Own: pass\n"
    )
    with pytest.raises(EvaluationError, match="no model that transformers can load"):
        open_chat_model(folder, DECODING).load("cpu")
    assert not (tmp_path / "ran").exists()


def test_a_folder_is_known_by_its_content(tmp_path: Path, chat_model_folder: Path) -> None:
    folder = copied(chat_model_folder, tmp_path / "model")
    made = model_in_folder(str(chat_model_folder)).manifest
    assert model_in_folder(str(folder)).manifest.fingerprint == made.fingerprint
    assert model_in_folder(folder.as_uri()).manifest.fingerprint == made.fingerprint
    (folder / "README.md").write_text("not read")
    assert model_in_folder(str(folder)).manifest.fingerprint == made.fingerprint
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert model_in_folder(str(folder)).manifest.fingerprint != made.fingerprint


class RememberingProcessor:
    """Like a tokenizer of transformers: a call changes its state, and then reads it again."""

    def __init__(self, meet: Barrier) -> None:
        self.meet, self.caller = meet, 0

    def __deepcopy__(self, _: object) -> "RememberingProcessor":
        return RememberingProcessor(self.meet)

    def apply_chat_template(self, chats: list[Any], **_: Any) -> tuple[int, int]:
        self.caller = get_ident()
        self.meet.wait(timeout=HANG_SECONDS)  # both threads are inside
        return id(self), self.caller - get_ident()


def test_threads_do_not_share_a_processor() -> None:
    processor = ChatProcessor(processor=RememberingProcessor(Barrier(2)))
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            found = list(pool.map(processor.inputs, [[], []]))
            assert [changed for _, changed in found] == [0, 0]
            used = {place for place, _ in found}
            assert len(used) == 2
            assert id(processor.processor) not in used
    assert len(processor._idle) == 2, "copies are used again"
