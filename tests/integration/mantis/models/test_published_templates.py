"""Texts, tokens and labels beside the chat templates that the published models have, with real vocabularies.

The templates come from a registry package. No package has those of LLaVA-Interleave and InternVL:
tests/golden/write_published_texts.py ran their code. So nothing of reference.py or chat_templates.yaml is on that side.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from mantis.config.model_settings import ModelSettings
from mantis.models.conversation import IMAGE_MARK, Conversation
from mantis.models.family import IGNORE, Processor
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family, family_spec
from mantis.models.verification.compare_tokens import WORDS, Case, cases
from mantis.models.verification.reference_processor import saved_processor
from mantis.models.weights.loading import base_tokenizer
from tests.golden.chat_messages import messages
from tests.helpers.paths import ROOT

# family -> its template's file, and the vocabulary; no registry has that of SmolLM2
TEMPLATES = {
    "qwen2_5-vl": ("qwen2_5_vl", "qwen2_5"),
    "qwen3-vl": ("qwen3_vl", "qwen3"),
    "idefics3": ("idefics3", "llama3"),
    "smolvlm": ("smolvlm", ""),
}
# family -> vocabulary; the file has the texts that the published code made
WRITTEN = {"llava-qwen2": "qwen2_5", "internvl": "qwen3"}
TEXTS = json.loads((ROOT / "tests" / "golden" / "published_texts.json").read_text())


@pytest.fixture(params=TEMPLATES, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def processor(name: str, request: pytest.FixtureRequest) -> Processor:
    vocabulary = TEMPLATES[name][1]
    if vocabulary:
        return processor_of(name, request.getfixturevalue("vocabularies") / vocabulary)
    return processor_of(name, None)


def processor_of(name: str, vocabulary: Path | None) -> Processor:
    """The family's processor with the tokenizer in the folder `vocabulary`, or with a small one."""
    kind = family(name)
    tokens = kind.special_tokens()
    tokenizer: PreTrainedTokenizerFast = (
        base_tokenizer(vocabulary, tokens)
        if vocabulary
        else train_tokenizer([" ".join(WORDS)] * 4, vocabulary=400, special_tokens=tokens)
    )
    return kind.processor(
        tokenizer, ModelSettings(family=name, prompt=kind.template, image=family_spec(name).small_image)
    )


@pytest.fixture(scope="module")
def saved(processor: Processor) -> Any:
    """transformers' own processor of the family, with the same tokenizer."""
    return saved_processor(processor)


def images_of(saved: Any, case: Case) -> Any:
    """As each processor takes them: SmolVLM's wants a list for each text."""
    if not case.images:
        return None
    return [list(case.images)] if "Idefics3" in type(saved).__name__ else list(case.images)


def test_tokens_are_those_of_the_models_own_template_and_processor(
    name: str, processor: Processor, saved: Any, published_templates: Path
) -> None:
    template = (published_templates / f"{TEMPLATES[name][0]}.jinja").read_text()
    for case in cases():
        text = saved.apply_chat_template(messages(case.conversation, case.images), chat_template=template)
        found = saved(text=[text], images=images_of(saved, case), add_special_tokens=False)
        assert processor.encode(case.conversation).input_ids == list(found["input_ids"][0]), case.conversation.id


def test_a_prompt_is_that_of_the_models_own_template(
    name: str, processor: Processor, saved: Any, published_templates: Path
) -> None:
    template = (published_templates / f"{TEMPLATES[name][0]}.jinja").read_text()
    for case in cases():
        asked = Conversation(id=case.conversation.id, turns=case.conversation.turns[:3], sizes=case.conversation.sizes)
        text = saved.apply_chat_template(
            messages(asked, case.images), chat_template=template, add_generation_prompt=True
        )
        found = saved(text=[text], images=images_of(saved, case), add_special_tokens=False)
        assert processor.encode_prompt(asked) == list(found["input_ids"][0]), case.conversation.id


def test_labels_are_what_the_assistant_says_by_the_training_template(
    name: str, processor: Processor, saved: Any, published_templates: Path
) -> None:
    """The template also marks the line break behind the end of an answer, which nobody has to say."""
    template = (published_templates / f"{TEMPLATES[name][0]}_training.jinja").read_text()
    line = processor.tokenizer.encode("\n", add_special_tokens=False)
    for case in cases():
        found = saved.apply_chat_template(
            messages(case.conversation, case.images),
            chat_template=template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        said = [token for token, mask in zip(found["input_ids"][0], found["assistant_masks"][0], strict=True) if mask]
        labels = processor.encode(case.conversation).labels
        learned: list[int] = []
        for at, label in enumerate(labels):
            if label != IGNORE:
                learned.append(label)
                last = at + 1 == len(labels) or labels[at + 1] == IGNORE
                learned += line if last else []
        assert learned == said, case.conversation.id


@pytest.mark.parametrize("name", WRITTEN)
def test_tokens_are_those_of_the_text_that_the_published_code_writes(name: str, vocabularies: Path) -> None:
    """The whole conversation, the prompt for its last answer, and what the loss counts of it."""
    processor = processor_of(name, vocabularies / WRITTEN[name])
    saved, end = saved_processor(processor), "<|im_end|>"
    written = TEXTS[name]["conversations"]
    assert set(written) == {case.conversation.id for case in cases()}
    for case in cases():
        talk, images = case.conversation, list(case.images) or None
        asked = Conversation(id=talk.id, turns=talk.turns[:-1], sizes=talk.sizes)
        encoding = processor.encode(talk)
        for part, ours in (("text", encoding.input_ids), ("prompt", processor.encode_prompt(asked))):
            text = written[talk.id][part].replace(IMAGE_MARK, processor.image_token)
            found = saved(text=[text], images=images, add_special_tokens=False)
            assert ours == list(found["input_ids"][0]), (talk.id, part)
        learned = [label for label in encoding.labels if label != IGNORE]
        answers = "".join(turn.content + end for turn in talk.turns if turn.role == "assistant")
        assert processor.tokenizer.decode(learned) == answers, talk.id
        assert all(answer + end in written[talk.id]["text"] for answer in answers.split(end))
