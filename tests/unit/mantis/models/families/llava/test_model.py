import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from mantis.config.model_settings import ModelSettings
from mantis.errors import InputError
from mantis.models.conversation import Conversation, ImageSize, Turn
from mantis.models.family import IGNORE, Encoding, Family, Processor
from mantis.models.packed_batch import PackedBatch, Pixels
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family
from tests.fixtures.models import Pack
from tests.helpers.content_parts import as_parts


def encode_all(processor: Any, conversations: list[Conversation]) -> tuple[list[Encoding], list[Pixels]]:
    encodings = [processor.encode(conversation) for conversation in conversations]
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(len(c.sizes), 3, 48, 48, generator=generator) for c in conversations]
    return encodings, [Pixels(values=each, image_grid=torch.full((len(each), 2), 2)) for each in values]


def sample_losses(llava: Family, model: torch.nn.Module, batch: PackedBatch) -> torch.Tensor:
    losses = cross_entropy(llava.forward(model, batch), batch.targets, reduction="none")
    samples = int(batch.target_samples.max()) + 1
    return torch.stack([losses[batch.target_samples == sample].mean() for sample in range(samples)])


def test_labels_are_the_answers_and_their_ends(
    settings: ModelSettings, tokenizer: PreTrainedTokenizerFast, processor: Processor, conversations: list[Conversation]
) -> None:
    encoding = processor.encode(conversations[1])
    assert len(encoding.input_ids) == len(encoding.labels)
    assert all(label in (IGNORE, token) for token, label in zip(encoding.input_ids, encoding.labels, strict=True))
    learned = tokenizer.decode([label for label in encoding.labels if label != IGNORE])
    header = "<|start_header_id|>assistant<|end_header_id|>\n\n" if settings.prompt == "llama3" else ""
    end = tokenizer.decode([processor.end_of_answer])
    assert learned == "".join(header + answer + end for answer in ("blue", "green green", "red"))


def test_images_are_expanded_and_never_learned(
    tokenizer: PreTrainedTokenizerFast, processor: Processor, conversations: list[Conversation]
) -> None:
    image = tokenizer.convert_tokens_to_ids("<image>")
    for conversation in conversations:
        encoding = processor.encode(conversation)
        expected = sum(processor.image_tokens(size) for size in conversation.sizes)
        assert encoding.input_ids.count(image) == expected == 4 * len(conversation.sizes)
        assert image not in encoding.labels


def test_image_of_an_answer_is_not_learned(tokenizer: PreTrainedTokenizerFast, processor: Processor) -> None:
    turns = (Turn(role="user", content="Which?"), Turn(role="assistant", content="<image> red"))
    talk = Conversation(id="a", turns=turns, sizes=(ImageSize(width=9, height=9),))
    encoding = processor.encode(talk)
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert encoding.input_ids.count(image) == 4
    assert image not in encoding.labels


def test_prompt_is_what_comes_before_the_answer(
    tokenizer: PreTrainedTokenizerFast, processor: Processor, conversations: list[Conversation]
) -> None:
    for conversation in conversations:
        *turns, answer = conversation.turns
        asked = dataclasses.replace(conversation, turns=tuple(turns))
        prompt = processor.encode_prompt(asked)
        answered = tokenizer.encode(answer.content, add_special_tokens=False)
        whole = processor.encode(conversation).input_ids
        assert whole == [*prompt, *answered, processor.end_of_answer]


def test_encoding_equals_transformers_processor(
    processor: Processor, conversations: list[Conversation], tmp_path: Path
) -> None:
    """The chat template and LlavaProcessor give the same tokens, for messages as text and as parts."""
    processor.save(tmp_path)
    theirs = AutoProcessor.from_pretrained(tmp_path)
    from PIL import Image

    for conversation in conversations:
        images = [Image.new("RGB", (48, 48))] * len(conversation.sizes)
        plain = [{"role": turn.role, "content": turn.content} for turn in conversation.turns]
        parts = [{"role": turn.role, "content": as_parts(turn.content)} for turn in conversation.turns]
        for messages in (plain, parts):
            text = theirs.apply_chat_template(messages, tokenize=False)
            inputs = theirs(text=text, images=images or None, add_special_tokens=False)
            assert inputs["input_ids"][0] == processor.encode(conversation).input_ids


def assert_same_gradients(model: torch.nn.Module, expected: dict[str, torch.Tensor]) -> None:
    """To 1e-5 of each parameter's norm, or of a hundredth of the whole gradient's: some are zero but for rounding."""
    whole = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for name, parameter in model.named_parameters():
        if name in expected:
            norm = max(expected[name].norm(), whole / 100)
            assert (parameter.grad - expected[name]).norm() <= 1e-5 * norm, name


def test_packed_equals_plain_transformers(
    llava: Family, processor: Processor, conversations: list[Conversation], pack: Pack, tmp_path: Path
) -> None:
    """What is saved, loaded by transformers' own class and run one by one with its own attention, is the same model."""
    encodings, pixels = encode_all(processor, conversations)
    model = llava.build(processor, seed=0)
    packed = pack(encodings, pixels)
    logits = llava.forward(model, packed)
    model.save_pretrained(tmp_path)
    assert type(AutoModelForImageTextToText.from_pretrained(tmp_path)) is LlavaForConditionalGeneration
    plain = LlavaForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager").train()
    start = packed.cu_seqlens.tolist()
    expected = []
    for sample, (encoding, images) in enumerate(zip(encodings, pixels, strict=True)):
        output = plain(
            input_ids=torch.tensor([encoding.input_ids]), pixel_values=images.values if len(images.image_grid) else None
        )
        expected.append(output.logits[0, packed.target_positions[packed.target_samples == sample] - start[sample]])
    assert (logits - torch.cat(expected)).abs().max() <= 1e-5
    cross_entropy(logits, packed.targets).backward()
    cross_entropy(torch.cat(expected), packed.targets).backward()
    gradients = {name: parameter.grad for name, parameter in plain.named_parameters()}
    assert_same_gradients(model, {name: gradient for name, gradient in gradients.items() if gradient is not None})


def test_without_images_the_same_parameters_get_gradients(
    llava: Family, processor: Processor, conversations: list[Conversation], pack: Pack
) -> None:
    encodings, pixels = encode_all(processor, conversations)
    model = llava.build(processor, seed=0)
    llava.forward(model, pack(encodings, pixels)).sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    text = pack([encodings[2]], [pixels[2]])
    assert text.pixel_values.shape[0] == 0
    llava.forward(model, text).sum().backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert set(grads) == trained
    parts = {llava.parameter_group(name) for name in trained}
    assert parts == {"vision", "projector", "text"}
    for name, grad in grads.items():
        if llava.parameter_group(name) != "text":
            assert torch.count_nonzero(grad) == 0, name


def test_without_images_logits_are_those_of_the_text_alone(
    llava: Family, processor: Processor, conversations: list[Conversation], pack: Pack
) -> None:
    encodings, pixels = encode_all(processor, conversations)
    model = llava.build(processor, seed=0)
    text = pack([encodings[2]], [pixels[2]])
    plain = model(input_ids=text.input_ids, segments=[text.input_ids.shape[1]], use_cache=False).logits[0]
    assert (llava.forward(model, text) - plain[text.target_positions]).abs().max() <= 1e-5


def test_gradient_checkpointing_changes_nothing(
    llava: Family, processor: Processor, conversations: list[Conversation], pack: Pack
) -> None:
    encodings, pixels = encode_all(processor, conversations)
    packed = pack(encodings, pixels)
    norms = []
    for checkpointing in (False, True):
        model = llava.build(processor, seed=0)
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        sample_losses(llava, model, packed).mean().backward()
        norms.append([p.grad.norm().item() for p in model.parameters() if p.grad is not None])
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


def test_same_seed_same_weights_and_the_callers_random_numbers_are_left_alone(
    llava: Family, processor: Processor
) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = llava.build(processor, seed=3).state_dict()
    assert torch.equal(torch.rand(3), expected)
    second, other = (llava.build(processor, seed=seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_position_embeddings_have_the_set_deviation(llava: Family, processor: Processor) -> None:
    model = llava.build(processor, seed=0)
    (positions,) = [p for name, p in model.named_parameters() if name.endswith("position_embedding.weight")]
    assert 0.35 < positions.std().item() < 0.65


def test_every_parameter_has_a_part(llava: Family, processor: Processor) -> None:
    parts = {name: llava.parameter_group(name) for name, _ in llava.build(processor, seed=0).named_parameters()}
    assert parts["model.multi_modal_projector.linear_2.bias"] == "projector"
    assert parts["model.vision_tower.embeddings.patch_embedding.weight"] == "vision"
    assert parts["lm_head.weight"] == parts["model.language_model.embed_tokens.weight"] == "text"


def test_what_is_refused() -> None:
    kind = family("llava-clip")
    tokenizer = train_tokenizer([], vocabulary=300, special_tokens=kind.special_tokens())
    with pytest.raises(InputError, match=r"meta/llama holds no config\.json"):
        kind.build(kind.processor(tokenizer, ModelSettings(base="meta/llama")), seed=0)
