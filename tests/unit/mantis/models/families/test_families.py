"""Every family of the registry keeps what the protocol promises."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

from mantis.config.recipe import FromScratch, ImageSettings, ModelSettings
from mantis.images.preprocessing import decode
from mantis.models.conversation import IMAGE_MARK, Conversation, ImageSize, Turn
from mantis.models.family import IGNORE, Encoding, Family
from mantis.models.packed_batch import PackedBatch, Pixels
from mantis.models.processing.chat_templates import load_chat_template
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family
from mantis.models.verification import family_checks
from mantis.models.verification.compare_tokens import differences
from mantis.models.verification.family_checks import check_sample, family_case, jpeg, pack
from tests.fixtures.models import Role

WORDS = family_checks.WORDS


@pytest.fixture(params=sorted(FAMILIES))
def kind(request: pytest.FixtureRequest) -> Family:
    return family(request.param)


@pytest.fixture(params=["own", "compact"])
def settings(request: pytest.FixtureRequest, kind: Family) -> ModelSettings:
    prompt = kind.prompt if request.param == "own" else "compact"
    tiny = TinyShape(vision_width=32, text_width=32, text_layers=2, image_size=48, patch_size=12, latents=3)
    return ModelSettings(family=kind.name, prompt=prompt, tiny=tiny)


@pytest.fixture
def tokenizer(kind: Family) -> PreTrainedTokenizerFast:
    return train_tokenizer([" ".join(WORDS) + "\n"] * 4, vocabulary=420, special_tokens=kind.special_tokens())


def jpeg(size: tuple[int, int], seed: int) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    small = torch.randint(0, 256, (6, 6, 3), dtype=torch.uint8, generator=generator).numpy()
    buffer = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def conversation(seed: int, images: int, turns: int = 2) -> tuple[Conversation, list[bytes]]:
    """A conversation of `turns` exchanges with so many images, anywhere in the user's turns, several in a row too."""
    rng = random.Random(seed)
    sizes = [rng.choice(SHAPES) for _ in range(images)]
    questions = [[rng.choice(WORDS) for _ in range(rng.randint(1, 6))] for _ in range(turns)]
    for _ in range(images):
        question = rng.choice(questions)
        question.insert(rng.randint(0, len(question)), IMAGE_MARK)
    contents = [
        text
        for question in questions
        for text in (rng.choice(["", " "]).join(question) or "?", " ".join(rng.choices(WORDS, k=rng.randint(1, 4))))
    ]
    roles: tuple[Role, Role] = ("user", "assistant")
    made = Conversation(
        id=str(seed),
        turns=tuple(Turn(role=roles[at % 2], content=text) for at, text in enumerate(contents)),
        sizes=tuple(ImageSize(width=width, height=height) for width, height in sizes),
    )
    return made, [jpeg(size, 100 * seed + at) for at, size in enumerate(sizes)]


@pytest.fixture
def samples() -> list[tuple[Conversation, list[bytes]]]:
    return [conversation(seed, images) for seed, images in enumerate((1, 0, 3, 10, 2))]


@pytest.fixture
def encoded(
    kind: Family,
    settings: ModelSettings,
    tokenizer: PreTrainedTokenizerFast,
    samples: list[tuple[Conversation, list[bytes]]],
) -> tuple[list[Encoding], list[Pixels]]:
    encodings = [kind.encode(made, tokenizer, settings) for made, _ in samples]
    return encodings, [kind.preprocess(images, settings) for _, images in samples]


def test_lengths_and_patches_are_known_without_decoding(
    kind: Family,
    settings: ModelSettings,
    tokenizer: PreTrainedTokenizerFast,
    samples: list[tuple[Conversation, list[bytes]]],
    encoded: tuple[list[Encoding], list[Pixels]],
) -> None:
    encodings, pixels = encoded
    for (made, _), encoding, found in zip(samples, encodings, pixels, strict=True):
        assert len(encoding.input_ids) == len(encoding.labels)
        patches = [kind.image_patches(size, settings) for size in made.sizes]
        assert found.image_grid.prod(1).tolist() == patches
        without = Conversation(
            id="", turns=tuple(Turn(role=t.role, content=t.content) for t in made.turns), sizes=made.sizes
        )
    if change == "learns the question":
        samples = [
            dataclasses.replace(
                sample, encoding=Encoding(input_ids=sample.encoding.input_ids, labels=sample.encoding.input_ids)
            )
            for sample in case.samples
        ]
        return dataclasses.replace(case, samples=samples)
    if change == "a prompt of its own":
        return dataclasses.replace(case, processor=Broken(processor, encode_prompt=lambda question: [0, 1, 2]))
    if change == "the samples as one segment":

        def forward(model: Any, batch: Any) -> Any:
            ends = batch.cu_seqlens[[0, -1]]
            return kind.forward(model, dataclasses.replace(batch, cu_seqlens=ends))

        return dataclasses.replace(case, family=Broken(kind, forward=forward))
    if change == "no dummy image":

        def text_alone(model: Any, batch: Any) -> Any:
            if len(batch.image_grid):
                return kind.forward(model, batch)
            row = model(input_ids=batch.input_ids, segments=batch.cu_seqlens.diff().tolist(), use_cache=False)
            return row.logits[0, batch.target_positions]

        return dataclasses.replace(case, family=Broken(kind, forward=text_alone))
    assert change == "images in another order"

    def generation_inputs(model: Any, input_ids: Any, pixels: Any, shown: Any) -> Any:
        return kind.generation_inputs(model, input_ids, pixels.pick(list(reversed(shown))), shown)

    return dataclasses.replace(case, family=Broken(kind, generation_inputs=generation_inputs))


def test_what_is_learned_is_what_the_assistant_says(
    kind: Family,
    settings: ModelSettings,
    tokenizer: PreTrainedTokenizerFast,
    samples: list[tuple[Conversation, list[bytes]]],
    encoded: tuple[list[Encoding], list[Pixels]],
) -> None:
    """Everything from the assistant's header through its end, and nothing of an image."""
    style = load_chat_template(settings.prompt)
    for (made, _), encoding in zip(samples, encoded[0], strict=True):
        learned = [label for label in encoding.labels if label != IGNORE]
        said = [style.assistant_start + turn.content + style.end for turn in made.turns if turn.role == "assistant"]
        assert tokenizer.decode(learned, skip_special_tokens=False) == "".join(said)
        for token, label in zip(encoding.input_ids, encoding.labels, strict=True):
            assert label in (token, IGNORE)


def test_a_prompt_is_the_beginning_of_the_training_text(
    kind: Family,
    settings: ModelSettings,
    tokenizer: PreTrainedTokenizerFast,
    samples: list[tuple[Conversation, list[bytes]]],
) -> None:
    for made, _ in samples:
        asked = Conversation(id="", turns=made.turns[:-1], sizes=made.sizes)
        prompt = kind.encode_prompt(asked, tokenizer, settings)
        whole = kind.encode(made, tokenizer, settings).input_ids
        opening = (
            tokenizer.encode(" ", add_special_tokens=False) if load_chat_template(settings.prompt).prompt_end else []
        )
        assert whole[: len(prompt)] == prompt or whole[: len(prompt) - len(opening)] == prompt[: -len(opening)]


def losses_of(kind: Family, model: torch.nn.Module, batch: PackedBatch) -> torch.Tensor:
    return sample_losses(kind.forward(model, batch), batch)


def test_packed_equals_separate(
    kind: Family,
    settings: ModelSettings,
    tokenizer: PreTrainedTokenizerFast,
    encoded: tuple[list[Encoding], list[Pixels]],
    pack: Pack,
) -> None:
    encodings, pixels = encoded
    model = kind.build(tokenizer, settings, seed=0)
    packed = pack(encodings, pixels)
    logits = kind.forward(model, packed)
    losses = sample_losses(logits, packed)
    losses.mean().backward()
    together = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for sample, (encoding, images) in enumerate(zip(encodings, pixels, strict=True)):
        alone = pack([encoding], [images])
        assert (kind.forward(model, alone) - logits[packed.target_samples == sample]).abs().max() <= 1e-5
        loss = losses_of(kind, model, alone).mean()
        assert abs(loss - losses[sample]) <= 1e-5 * loss
        (loss / len(encodings)).backward()
    whole = torch.stack([gradient.norm() for gradient in together.values()]).norm()
    for name, parameter in model.named_parameters():
        if name in together:  # to 1e-5 of its norm, or of a hundredth of the whole's: some are zero but for rounding
            norm = max(together[name].norm(), whole / 100)
            assert (parameter.grad - together[name]).norm() <= 1e-5 * norm, name


def test_no_sample_sees_another(
    kind: Family,
    settings: ModelSettings,
    tokenizer: PreTrainedTokenizerFast,
    samples: list[tuple[Conversation, list[bytes]]],
    encoded: tuple[list[Encoding], list[Pixels]],
    pack: Pack,
) -> None:
    """Another image of the same size in one sample leaves every other's logits bit-identical."""
    encodings, pixels = encoded
    model = kind.build(tokenizer, settings, seed=0).eval()
    before = kind.forward(model, pack(encodings, pixels))
    changed = list(pixels)
    images = list(samples[2][1])
    images[0] = jpeg((samples[2][0].sizes[0].width, samples[2][0].sizes[0].height), 999)
    changed[2] = kind.preprocess(images, settings)
    batch = pack(encodings, changed)
    after = kind.forward(model, batch)
    assert torch.equal(before[batch.target_samples != 2], after[batch.target_samples != 2])
    assert not torch.equal(before[batch.target_samples == 2], after[batch.target_samples == 2])


def test_samples_and_rows_without_images_train(
    kind: Family,
    settings: ModelSettings,
    tokenizer: PreTrainedTokenizerFast,
    encoded: tuple[list[Encoding], list[Pixels]],
    pack: Pack,
) -> None:
    encodings, pixels = encoded
    model = kind.build(tokenizer, settings, seed=0)
    text = pack([encodings[1]], [pixels[1]])
    assert not len(text.image_grid)
    losses_of(kind, model, text).mean().backward()
    seen = {kind.parameter_group(name) for name, p in model.named_parameters() if p.grad is not None}
    every = {kind.parameter_group(name) for name, _ in model.named_parameters()}
    assert seen == every, "a part that does not run hangs the other ranks"
    vision = [p.grad for name, p in model.named_parameters() if kind.parameter_group(name) in ("vision", "projector")]
    assert all(grad is None or not grad.any() for grad in vision)


def test_transformers_own_class_gives_the_same_logits(
    kind: Family,
    settings: ModelSettings,
    tokenizer: PreTrainedTokenizerFast,
    samples: list[tuple[Conversation, list[bytes]]],
    encoded: tuple[list[Encoding], list[Pixels]],
    pack: Pack,
    tmp_path: Path,
) -> None:
    """Saved, loaded by transformers alone, one by one, with images padded as its own processors pad them."""
    encodings, pixels = encoded
    model = kind.build(tokenizer, settings, seed=0).eval()
    packed = pack(encodings, pixels)
    logits = kind.forward(model, packed)
    model.save_pretrained(tmp_path)
    kind.save_processor(tokenizer, settings, tmp_path)
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path, attn_implementation="eager").eval()
    start = packed.cu_seqlens.tolist()
    for sample, (encoding, found) in enumerate(zip(encodings, pixels, strict=True)):
        if not len(found.image_grid):
            continue
        inputs = as_transformers(kind, plain, encoding, found, settings)
        places = packed.target_positions[packed.target_samples == sample] - start[sample]
        expected = plain(input_ids=torch.tensor([encoding.input_ids]), **inputs).logits[0, places]
        assert (expected - logits[packed.target_samples == sample]).abs().max() <= 1e-5


def as_transformers(
    kind: Family, model: torch.nn.Module, encoding: Encoding, pixels: Pixels, settings: ModelSettings
) -> dict[str, torch.Tensor]:
    if kind.name == "idefics2":
        return padded(pixels, settings.tiny.patch_size)
    if kind.name == "flamingo":
        return kind.generation_inputs(
            model, torch.tensor([encoding.input_ids]), pixels, list(range(len(pixels.image_grid)))
        )
    values = pixels.values if pixels.values.ndim == 4 else pixels.values.unsqueeze(0)
    return {"pixel_values": values}


def padded(pixels: Pixels, edge: int) -> dict[str, torch.Tensor]:
    """Idefics2's images as transformers takes them: zeros at the right and at the bottom, and a mask."""
    rows, columns = pixels.image_grid.max(0).values.tolist()
    values = torch.zeros(1, len(pixels.image_grid), 3, rows * edge, columns * edge)
    mask = torch.zeros(1, len(pixels.image_grid), rows * edge, columns * edge, dtype=torch.bool)
    parts = torch.split(pixels.values, pixels.image_grid.prod(1).tolist())
    for at, (part, (down, across)) in enumerate(zip(parts, pixels.image_grid.tolist(), strict=True)):
        image = part.view(down, across, 3, edge, edge).permute(2, 0, 3, 1, 4).reshape(3, down * edge, across * edge)
        values[0, at, :, : down * edge, : across * edge] = image
        mask[0, at, : down * edge, : across * edge] = True
    return {"pixel_values": values, "pixel_attention_mask": mask}


def test_batched_generation_equals_one_by_one(
    kind: Family,
    settings: ModelSettings,
    tokenizer: PreTrainedTokenizerFast,
    samples: list[tuple[Conversation, list[bytes]]],
) -> None:
    model = kind.build(tokenizer, settings, seed=0).eval()
    model.set_attn_implementation("sdpa")
    kind.for_generation(model)
    asked = [Conversation(id="", turns=made.turns[:-1], sizes=made.sizes) for made, _ in samples if made.sizes]
    images = [found for made, found in samples if made.sizes]
    prompts = [kind.encode_prompt(made, tokenizer, settings) for made in asked]

    def answers(chosen: Any) -> Any:
        width = max(len(prompts[at]) for at in chosen)
        missing = [width - len(prompts[at]) for at in chosen]
        ids = torch.tensor([[tokenizer.pad_token_id] * n + prompts[at] for n, at in zip(missing, chosen, strict=True)])
        mask = torch.tensor([[0] * n + [1] * (width - n) for n in missing])
        shown = [image for at in chosen for image in images[at]]
        inputs = kind.generation_inputs(model, ids, kind.preprocess(shown, settings), list(range(len(shown))))
        out = model.generate(input_ids=ids, attention_mask=mask, **inputs, max_new_tokens=6, do_sample=False)
        return [row[width:].tolist() for row in out]

    def cut(tokens: Any) -> Any:
        end = kind.end_of_answer(tokenizer, settings)
        return tokens[: tokens.index(end)] if end in tokens else [t for t in tokens if t != tokenizer.pad_token_id]

    together = [cut(tokens) for tokens in answers(range(len(prompts)))]
    assert together == [cut(answers([at])[0]) for at in range(len(prompts))]


@pytest.mark.parametrize("size", [(48, 48), (60, 30), (31, 90), (20, 20), (300, 200), (50, 49)])
def test_pixels_are_those_of_transformers(size: tuple[int, int]) -> None:
    """Idefics2 and Fuyu, whose images keep their shapes: against their own processors, patch by patch."""
    from transformers import FuyuImageProcessor, Idefics2ImageProcessor

    cut = ImageSettings(size=60, width=120, patch_size=12)
    image = jpeg(size, 7)
    opened = torch.from_numpy(decode(image)).permute(2, 0, 1)

    def preprocessed(name: Any) -> Any:
        kind = family(name)
        tokenizer = train_tokenizer([], vocabulary=300, special_tokens=kind.special_tokens())
        return kind.processor(tokenizer, ModelSettings(family=name, prompt=name, image=cut)).preprocess([image])

    theirs = Idefics2ImageProcessor(size={"shortest_edge": 23, "longest_edge": 60})([[opened]], return_tensors="pt")
    ours = preprocessed("idefics2")
    rows, columns = ours.image_grid[0].tolist()
    assert (rows, columns) == tuple(length // 12 for length in theirs.pixel_values.shape[-2:])
    whole = theirs.pixel_values[0, 0, :, : rows * 12, : columns * 12]
    image_of_ours = (
        ours.values.view(rows, columns, 3, 12, 12).permute(2, 0, 3, 1, 4).reshape(3, rows * 12, columns * 12)
    )
    assert (image_of_ours - whole).abs().max() <= 1e-6

    processor = FuyuImageProcessor(size={"height": 60, "width": 120}, patch_size={"height": 12, "width": 12})
    theirs = processor.preprocess([[opened]], return_tensors="pt")["images"][0][0]
    ours = preprocessed("fuyu")
    rows, columns = ours.image_grid[0].tolist()
    expected = processor.patchify_image(theirs[None, :, : rows * 12, : columns * 12])[0]
    assert (ours.values - expected).abs().max() <= 1e-6


def test_the_released_siglip_drops_a_patch(tmp_path: Path) -> None:
    """`default` there: 728 of 729 positions, in counting, in training and in transformers' own class and processor."""
    case = family_case("llava-siglip")
    kind, old = case.family, case.processor
    image = ImageSettings(size=48, patch_size=12, feature_select="default")
    shape = FromScratch(vision_width=32, text_width=32, text_layers=1)
    settings = ModelSettings(family=kind.name, prompt="llama3", image=image, from_scratch=shape)
    processor = kind.processor(old.tokenizer, settings)
    assert processor.image_tokens(ImageSize(width=48, height=48)) == 4 * 4 - 1
    sample = check_sample(processor, 4, 3)
    model = kind.build(processor, seed=0).eval()
    batch = pack([sample])
    logits = kind.forward(model, batch)
    model.save_pretrained(tmp_path)
    processor.save(tmp_path)
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path, attn_implementation="eager").eval()
    expected = plain(input_ids=torch.tensor([sample.encoding.input_ids]), pixel_values=sample.pixels.values).logits[0]
    assert (expected[batch.target_positions] - logits).abs().max() <= 1e-5
    assert list(differences(processor, case.reference)) == []
