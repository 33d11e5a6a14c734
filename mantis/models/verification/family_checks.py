"""Checks of the promises that every family makes. Run them on a family of your own, too.

Each function of CHECKS takes a `FamilyCase` and raises a FamilyError that names the fault. The models are tiny and
built from nothing. The conversations have none to ten images of several shapes in odd places.
"""

import io
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForImageTextToText, PreTrainedModel

from mantis.config.model_settings import FromScratch, ModelSettings
from mantis.errors import FamilyError
from mantis.models.conversation import IMAGE_MARK, Conversation, ImageSize, Turn
from mantis.models.family import IGNORE, Encoding, Family, Processor
from mantis.models.packed_batch import PackedBatch, Pixels
from mantis.models.processing.chat_templates import load_chat_template
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family, family_spec
from mantis.models.verification.compare_tokens import differences
from mantis.models.verification.fake_gpu import GPU, ReadBackError, fake_gpu, on_fake_gpu, to_fake_gpu
from mantis.models.verification.golden import golden_differences
from mantis.models.verification.reference_processor import FamilyReference

WORDS = ["What", "colour", "is", "the", "square", "red", "blue", "green", "How", "many?", "in", "image", "12"]
SIZES = [(48, 48), (48, 48), (60, 30), (31, 90), (20, 20), (97, 41)]  # width and height of images
IMAGE_COUNTS = (1, 0, 3, 10, 2)  # of the samples
TEXT_ONLY = 1  # the sample without images
VOCABULARY_SIZE = 420
CLOSE = 1e-5  # of logits, and relative of losses and gradients, in fp32
NEW_TOKENS = 6
ENOUGH_PASSES = 2  # of `generate`: one over the prompt, and one over a token with the cache


@dataclass(frozen=True, kw_only=True)
class CheckSample:
    """A conversation with its images, and both as the model takes them."""

    conversation: Conversation
    images: list[bytes]
    encoding: Encoding
    pixels: Pixels


@dataclass(frozen=True, kw_only=True)
class FamilyCase:
    """A family with a tiny model's settings, and a few samples."""

    family: Family
    reference: FamilyReference
    processor: Processor
    samples: list[CheckSample]

    def model(self) -> PreTrainedModel:
        """A tiny model from nothing, in training mode; the same one every time."""
        return self.family.build(self.processor, seed=0)

    def packed(self) -> PackedBatch:
        """All samples in one row."""
        return pack(self.samples)


def family_case(name: str, *, template: str = "") -> FamilyCase:
    """The case of a family under one chat template; without a name, under the family's own.

    Raises:
        ConfigError: there is no such family or template.
    """
    kind, spec = family(name), family_spec(name)
    settings = ModelSettings(
        family=name,
        prompt=template or kind.template,
        image=spec.small_image,
        from_scratch=FromScratch(vision_width=32, text_width=32, text_layers=2),
    )
    tokenizer = train_tokenizer(
        [" ".join(WORDS) + "\n"] * 4, vocabulary=VOCABULARY_SIZE, special_tokens=kind.special_tokens()
    )
    processor = kind.processor(tokenizer, settings)
    return FamilyCase(
        family=kind,
        reference=spec.reference(),
        processor=processor,
        samples=[check_sample(processor, seed, images) for seed, images in enumerate(IMAGE_COUNTS)],
    )


def check_sample(processor: Processor, seed: int, images: int) -> CheckSample:
    """A conversation of two exchanges with `images` images anywhere in the user's turns, several in a row too."""
    rng = random.Random(seed)
    sizes = [rng.choice(SIZES) for _ in range(images)]
    questions = [[rng.choice(WORDS) for _ in range(rng.randint(1, 6))] for _ in range(2)]
    for _ in range(images):
        question = rng.choice(questions)
        question.insert(rng.randint(0, len(question)), IMAGE_MARK)
    turns: list[Turn] = []
    for question in questions:
        turns.append(Turn(role="user", content=rng.choice(["", " "]).join(question)))
        turns.append(Turn(role="assistant", content=" ".join(rng.choices(WORDS, k=rng.randint(1, 4)))))
    conversation = Conversation(
        id=str(seed),
        turns=tuple(turns),
        sizes=tuple(ImageSize(width=width, height=height) for width, height in sizes),
    )
    encoded = [jpeg(size, 100 * seed + at) for at, size in enumerate(sizes)]
    return CheckSample(
        conversation=conversation,
        images=encoded,
        encoding=processor.encode(conversation),
        pixels=processor.preprocess(encoded),
    )


def jpeg(size: tuple[int, int], seed: int) -> bytes:
    """A smooth image of random colours, encoded."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.randint(0, 256, (6, 6, 3), dtype=torch.uint8, generator=generator).numpy()
    buffer = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def pack(samples: Sequence[CheckSample]) -> PackedBatch:
    """Samples in one row, in the form that training gives a family."""
    lengths = [len(sample.encoding.input_ids) for sample in samples]
    starts = [sum(lengths[:at]) for at in range(len(lengths) + 1)]
    targets = [
        (label, start + place - 1, at)  # the hidden state before a label predicts it
        for at, (sample, start) in enumerate(zip(samples, starts, strict=False))
        for place, label in enumerate(sample.encoding.labels)
        if label != IGNORE
    ]
    return PackedBatch(
        input_ids=torch.tensor([[token for sample in samples for token in sample.encoding.input_ids]]),
        position_ids=torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0),
        cu_seqlens=torch.tensor(starts, dtype=torch.int32),
        pixel_values=torch.cat([sample.pixels.values for sample in samples]),
        image_grid=torch.cat([sample.pixels.image_grid for sample in samples]),
        targets=torch.tensor([target for target, _, _ in targets]),
        target_positions=torch.tensor([position for _, position, _ in targets]),
        target_samples=torch.tensor([sample for _, _, sample in targets]),
        weights=torch.ones(len(samples)),
    )


def lengths_are_known_without_decoding(case: FamilyCase) -> None:
    """`image_tokens`, `image_ids` and `image_patches` say what `encode` and `preprocess` really give."""
    processor = case.processor
    for sample in case.samples:
        sizes, encoding = sample.conversation.sizes, sample.encoding
        _same(len(encoding.labels), len(encoding.input_ids), "the number of labels")
        patches = [processor.image_patches(size) for size in sizes]
        _same(sample.pixels.image_grid.prod(1).tolist(), patches, "image_patches")
        images = [processor.image_ids(size) for size in sizes]
        _same([len(ids) for ids in images], [processor.image_tokens(size) for size in sizes], "image_tokens")
        token = images[0][0] if images else -1
        _same(encoding.input_ids.count(token), sum(ids.count(token) for ids in images), "the image tokens of a sample")


def a_sample_keeps_its_bound(case: FamilyCase) -> None:
    """Under `max_pixels_per_sample` the images of a sample shrink, and counting, encoding and decoding agree on it."""
    if "max_pixels_per_sample" not in family_spec(case.family.name).caps:
        return
    sample = max(case.samples, key=lambda each: len(each.images))
    sizes, edge = sample.conversation.sizes, case.processor.settings.image.patch_size
    whole, least = (
        sum(with_image(case, **bounds).sample_patches(sizes)) * edge**2 for bounds in ({}, {"max_pixels": 1})
    )
    bound = (whole + least) // 2
    processor = with_image(case, max_pixels_per_sample=bound)
    patches = processor.sample_patches(sizes)
    _require(sum(patches) * edge**2 <= bound, f"A sample has {sum(patches) * edge**2} pixels; its bound is {bound}.")
    _require(processor.images_depend, "The images of a sample share its bound, but images_depend is False.")
    _same(processor.preprocess(sample.images).image_grid.prod(1).tolist(), patches, "image_patches under the bound")
    before, after = (
        [len(each.image_ids(size)) for size in sizes] for each in (case.processor, processor.of_sample(sizes))
    )
    _require(sum(after) < sum(before), "The bound leaves as many image tokens.")
    shorter = len(sample.encoding.input_ids) - len(processor.encode(sample.conversation).input_ids)
    _same(shorter, sum(before) - sum(after), "the tokens that the bound saves")


def with_image(case: FamilyCase, **update: Any) -> Processor:
    """The case's processor with other values in `model.image`."""
    settings = case.processor.settings
    image = settings.image.model_copy(update=update)
    return case.family.processor(case.processor.tokenizer, settings.model_copy(update={"image": image}))


def labels_are_the_assistants_words(case: FamilyCase) -> None:
    """Everything from the assistant's header through its end has a label, and nothing of an image has."""
    style, tokenizer = load_chat_template(case.processor.settings.prompt), case.processor.tokenizer
    for sample in case.samples:
        learned = [label for label in sample.encoding.labels if label != IGNORE]
        answers = [turn.content for turn in sample.conversation.turns if turn.role == "assistant"]
        wanted = "".join(style.assistant_start + answer + style.end for answer in answers)
        _same(tokenizer.decode(learned, skip_special_tokens=False), wanted, "the text with labels")
        for token, label in zip(sample.encoding.input_ids, sample.encoding.labels, strict=True):
            _require(label in (token, IGNORE), f"A label is {label} where the token is {token}.")


def a_prompt_begins_the_training_text(case: FamilyCase) -> None:
    """Evaluation asks with the tokens that training put before an answer."""
    processor = case.processor
    opens_with_space = load_chat_template(processor.settings.prompt).prompt_end is not None
    space = len(processor.tokenizer.encode(" ", add_special_tokens=False)) if opens_with_space else 0
    for sample in case.samples:
        prompt, whole = processor.encode_prompt(_question(sample)), sample.encoding.input_ids
        begins = whole[: len(prompt)] == prompt
        shorter = prompt[: len(prompt) - space]
        _require(begins or whole[: len(shorter)] == shorter, "encode_prompt differs from the beginning of encode.")


def parts_are_those_of_the_description(case: FamilyCase) -> None:
    """`parameter_group` names the parts that the FamilySpec lists: recipes are checked with that list."""
    found = {case.family.parameter_group(name) for name, _ in case.model().named_parameters()}
    _same(sorted(found), sorted(family_spec(case.family.name).parts), "parts of the model")


def tokens_equal_the_reference(case: FamilyCase) -> None:
    """Tokens, labels and pixels are those of transformers' processor, for the family's own chat template."""
    if case.processor.settings.prompt == case.family.template:
        _same(list(differences(case.processor, case.reference)), [], "what differs from the reference")


def tokens_equal_the_golden_file(case: FamilyCase) -> None:
    """Tokens, labels and pixels are those of the golden file, where the family has one, for its own chat template."""
    name = case.family.name
    there = family_spec(name).file(f"golden/{name}.json").is_file()
    if there and case.processor.settings.prompt == case.family.template:
        _same(golden_differences(name), [], "what differs from the golden file")


def packed_equals_separate(case: FamilyCase) -> None:
    """Logits, losses and gradients of a packed row are those of its samples one by one."""
    model, packed = case.model(), case.packed()
    logits = case.family.forward(model, packed)
    losses = _losses(logits, packed)
    losses.mean().backward()  # type: ignore[no-untyped-call]
    together = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for at, sample in enumerate(case.samples):
        alone = pack([sample])
        found = case.family.forward(model, alone)
        _close(found, logits[packed.target_samples == at], CLOSE, f"The logits of sample {at}")
        loss = _losses(found, alone).mean()
        _close(loss, losses[at], CLOSE * float(loss), f"The loss of sample {at}")
        (loss / len(case.samples)).backward()  # type: ignore[no-untyped-call]
    whole = torch.stack([gradient.norm() for gradient in together.values()]).norm()
    for name, parameter in model.named_parameters():
        if name in together:  # to CLOSE of its norm, or of a hundredth of the whole's: some are zero but for rounding
            norm = max(together[name].norm(), whole / 100)
            error = (parameter.grad - together[name]).norm()
            _require(bool(error <= CLOSE * norm), f"The gradient of {name} differs by {float(error / norm):.2g}.")


def no_sample_sees_another(case: FamilyCase) -> None:
    """Another image of the same size in one sample leaves the logits of every other sample bit-identical."""
    changed, model = 2, case.model().eval()
    before = case.family.forward(model, case.packed())
    sample = case.samples[changed]
    size = sample.conversation.sizes[0]
    pixels = case.processor.preprocess([jpeg((size.width, size.height), 999), *sample.images[1:]])
    other = CheckSample(**{**vars(sample), "pixels": pixels})
    batch = pack([*case.samples[:changed], other, *case.samples[changed + 1 :]])
    after = case.family.forward(model, batch)
    same = batch.target_samples != changed
    _require(torch.equal(before[same], after[same]), "An image of one sample changes the logits of another.")
    _require(not torch.equal(before[~same], after[~same]), "An image does not change the logits of its own sample.")


def rows_without_images_train(case: FamilyCase) -> None:
    """Without an image every part of the model runs, or other ranks would hang; the vision part learns nothing."""
    model, row = case.model(), pack([case.samples[TEXT_ONLY]])
    parameter_group = case.family.parameter_group
    _losses(case.family.forward(model, row), row).mean().backward()  # type: ignore[no-untyped-call]
    ran = {parameter_group(name) for name, p in model.named_parameters() if p.grad is not None}
    missing = {parameter_group(name) for name, _ in model.named_parameters()} - ran
    _same(sorted(missing), [], "the parts that do not run without an image")
    for name, parameter in model.named_parameters():
        if parameter_group(name) in ("vision", "projector") and parameter.grad is not None:
            _require(not parameter.grad.any(), f"Without an image {name} has a gradient that is not zero.")


def the_saved_model_equals_transformers(case: FamilyCase) -> None:
    """transformers alone loads model and processor, and gives the same logits, sample by sample."""
    model, packed = case.model().eval(), case.packed()
    logits = case.family.forward(model, packed)
    with tempfile.TemporaryDirectory(prefix="mantis-family-") as folder:
        model.save_pretrained(folder)
        case.processor.save(Path(folder))
        plain = AutoModelForImageTextToText.from_pretrained(
            folder, attn_implementation="eager", local_files_only=True, trust_remote_code=False
        ).eval()
    for at, sample in enumerate(case.samples):
        if sample.images:
            chosen = packed.target_samples == at
            ids = torch.tensor([sample.encoding.input_ids])
            inputs = case.reference.model_inputs(plain, ids, sample.pixels)
            places = packed.target_positions[chosen] - int(packed.cu_seqlens[at])
            _close(
                plain(input_ids=ids, **inputs).logits[0, places], logits[chosen], CLOSE, f"The logits of sample {at}"
            )


def a_batch_answers_as_one_by_one(case: FamilyCase) -> None:
    """Greedy answers to prompts of different lengths in one batch are those to each prompt alone."""
    model = case.model().eval()
    model.set_attn_implementation("sdpa")
    case.family.for_generation(model)
    asked = [sample for sample in case.samples if sample.images]
    _same(_answers(case, model, asked), [_answers(case, model, [sample])[0] for sample in asked], "the answers")


def a_gpu_computes_a_row(case: FamilyCase) -> None:
    """In bf16 on a GPU, a row takes one attention call per layer, and no code waits for a value of the GPU."""
    for samples in (case.samples, [case.samples[TEXT_ONLY]]):
        model, batch = case.model(), pack(samples)
        with torch.no_grad(), fake_gpu() as operators:
            to_fake_gpu(model, torch.bfloat16)
            with _on_gpu("forward"):
                logits = case.family.forward(model, on_fake_gpu(batch, torch.bfloat16))
        kind = (logits.device, logits.dtype)
        _same(kind, (GPU, torch.bfloat16), "device and precision of the logits")
        _require(any("varlen" in name for name in operators), "The row's attention runs without a varlen kernel.")


def a_gpu_answers(case: FamilyCase) -> None:
    """In bf16 on a GPU, the inputs of `generate` fit the model. Only transformers' own loop waits for values."""
    for samples in (case.samples, [case.samples[TEXT_ONLY]]):
        model = case.model().eval()
        model.set_attn_implementation("sdpa")
        case.family.for_generation(model)
        passes: list[None] = []
        model.register_forward_pre_hook(partial(_count_passes, passes))
        with torch.no_grad(), fake_gpu(reads_of="/transformers/"):
            to_fake_gpu(model, torch.bfloat16)
            with suppress(_EnoughPassesError), _on_gpu("generate"):
                _generated(case, model, samples)
        _same(len(passes), ENOUGH_PASSES, "the number of forward passes")


CHECKS: tuple[Callable[[FamilyCase], None], ...] = (
    lengths_are_known_without_decoding,
    a_sample_keeps_its_bound,
    labels_are_the_assistants_words,
    a_prompt_begins_the_training_text,
    parts_are_those_of_the_description,
    tokens_equal_the_reference,
    tokens_equal_the_golden_file,
    packed_equals_separate,
    no_sample_sees_another,
    rows_without_images_train,
    the_saved_model_equals_transformers,
    a_batch_answers_as_one_by_one,
    a_gpu_computes_a_row,
    a_gpu_answers,
)


class _EnoughPassesError(Exception):
    """Ends `generate`, which never ends by itself where tokens have no values."""


def _count_passes(passes: list[None], *_: Any) -> None:
    if len(passes) == ENOUGH_PASSES:
        raise _EnoughPassesError
    passes.append(None)


@contextmanager
def _on_gpu(what: str) -> Iterator[None]:
    try:
        yield
    except (ReadBackError, RuntimeError, TypeError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise FamilyError(
            f"On a GPU in bf16, {what} fails: {first}",
            remedy="Make every tensor on the model's device and in its dtype, and read no value from it.",
        ) from error


def _answers(case: FamilyCase, model: Any, samples: Sequence[CheckSample]) -> list[list[int]]:
    found, width = _generated(case, model, samples)
    end, pad = case.processor.end_of_answer, case.processor.tokenizer.pad_token_id
    return [_until(row, end, pad) for row in found[:, width:].tolist()]


def _generated(case: FamilyCase, model: Any, samples: Sequence[CheckSample]) -> tuple[Tensor, int]:
    """The tokens of prompts and greedy answers [B, T], and the length of the longest prompt."""
    processor = case.processor
    prompts, pad = [processor.encode_prompt(_question(sample)) for sample in samples], processor.tokenizer.pad_token_id
    width = max(map(len, prompts))
    missing = [width - len(prompt) for prompt in prompts]
    ids = torch.tensor([[pad] * n + prompt for n, prompt in zip(missing, prompts, strict=True)])
    images = [image for sample in samples for image in sample.images]
    inputs = case.family.generation_inputs(model, ids, processor.preprocess(images), range(len(images)))
    mask = torch.tensor([[0] * n + [1] * (width - n) for n in missing])
    tokens = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    found: Tensor = model.generate(**tokens, **inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    return found, width


def _until(tokens: list[int], end: int, pad: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else [token for token in tokens if token != pad]


def _question(sample: CheckSample) -> Conversation:
    return Conversation(id="", turns=sample.conversation.turns[:-1], sizes=sample.conversation.sizes)


def _losses(logits: Tensor, batch: PackedBatch) -> Tensor:
    """Mean negative log-likelihood of each sample's targets, [S]."""
    losses = cross_entropy(logits.float(), batch.targets, reduction="none")
    return torch.stack([losses[batch.target_samples == at].mean() for at in range(len(batch.cu_seqlens) - 1)])


def _close(found: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    _same(list(found.shape), list(wanted.shape), f"the shape of {what[0].lower()}{what[1:]}")
    largest = float((found - wanted).detach().abs().max())
    _require(largest <= tolerance, f"{what} differ by up to {largest:.3g}; {tolerance:.0e} is allowed.")


def _same(found: Any, wanted: Any, what: str) -> None:
    _require(found == wanted, f"{what[0].upper()}{what[1:]}: found {found!r}, expected {wanted!r}.")


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise FamilyError(problem, remedy="docs/how-to/add-a-family.md says what each function of a family does.")
