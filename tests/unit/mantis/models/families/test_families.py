"""Every family of the registry keeps what the protocol promises."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from mantis.config.model_settings import FromScratch, ImageSettings, ModelSettings
from mantis.errors import FamilyError
from mantis.images.preprocessing import decode
from mantis.models.conversation import ImageSize
from mantis.models.family import Encoding
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family, family_names
from mantis.models.verification import family_checks
from mantis.models.verification.compare_tokens import differences
from mantis.models.verification.family_checks import CHECKS, check_sample, family_case, jpeg, pack
from tests.helpers.tested_families import paper_first

WORDS = family_checks.WORDS


@pytest.mark.parametrize("name", family_names())
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_family_keeps_its_promise(check: Any, name: Any) -> None:
    check(family_case(name))


@pytest.mark.parametrize("name", paper_first())
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_family_keeps_its_promise_under_the_compact_template(check: Any, name: Any) -> None:
    check(family_case(name, template="compact"))


class Broken:
    """A family or a processor in which some names are others."""

    def __init__(self, original: Any, **changes: Any) -> None:
        self.__dict__ |= {"_original": original, **changes}

    def __getattr__(self, name: Any) -> Any:
        return getattr(self._original, name)


def broken_case(case: Any, change: Any) -> Any:
    """The case with a slip, as an author of a family may make it."""
    kind, processor = case.family, case.processor
    if change == "counts one token too few":
        return dataclasses.replace(
            case, processor=Broken(processor, image_tokens=lambda size: processor.image_tokens(size) - 1)
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
    if change == "asks the GPU":

        def asking(model: Any, batch: Any) -> Any:
            return kind.forward(model, batch) if (batch.input_ids >= 0).all() else None

        return dataclasses.replace(case, family=Broken(kind, forward=asking))
    if change == "copies to the host":
        return dataclasses.replace(
            case, family=Broken(kind, forward=lambda model, batch: kind.forward(model, batch).cpu())
        )
    if change == "positions on the host":

        def mixed(model: Any, batch: Any) -> Any:
            places = torch.zeros(batch.position_ids.shape, dtype=torch.int64)
            return kind.forward(model, dataclasses.replace(batch, position_ids=places))

        return dataclasses.replace(case, family=Broken(kind, forward=mixed))
    if change == "a head in fp32":

        def single(model: Any, batch: Any) -> Any:
            model.lm_head.float()
            return kind.forward(model, batch)

        return dataclasses.replace(case, family=Broken(kind, forward=single))
    if change == "segment by segment":

        def plain(model: Any, batch: Any) -> Any:
            model.set_attn_implementation({"text_config": "sdpa"})
            return kind.forward(model, batch)

        return dataclasses.replace(case, family=Broken(kind, forward=plain))
    if change == "images on the host":

        def unmoved(model: Any, input_ids: Any, pixels: Any, shown: Any) -> Any:
            return {"pixel_values": pixels.pick(shown).values} if shown else {}

        return dataclasses.replace(case, family=Broken(kind, generation_inputs=unmoved))
    assert change == "images in another order"

    def generation_inputs(model: Any, input_ids: Any, pixels: Any, shown: Any) -> Any:
        return kind.generation_inputs(model, input_ids, pixels.pick(list(reversed(shown))), shown)

    return dataclasses.replace(case, family=Broken(kind, generation_inputs=generation_inputs))


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        ("counts one token too few", "lengths_are_known_without_decoding", "Image_tokens"),
        ("learns the question", "labels_are_the_assistants_words", "text with labels"),
        ("a prompt of its own", "a_prompt_begins_the_training_text", "encode_prompt differs"),
        ("the samples as one segment", "packed_equals_separate", "logits of sample"),
        ("the samples as one segment", "no_sample_sees_another", "changes the logits of another"),
        ("no dummy image", "rows_without_images_train", "do not run without an image"),
        ("images in another order", "a_batch_answers_as_one_by_one", "The answers"),
        ("asks the GPU", "a_gpu_computes_a_row", "forward fails: .* needs a value"),
        ("copies to the host", "a_gpu_computes_a_row", "forward fails: .* from the GPU to the host"),
        ("positions on the host", "a_gpu_computes_a_row", "forward fails: .*device"),
        ("a head in fp32", "a_gpu_computes_a_row", "forward fails: .*dtype"),
        ("segment by segment", "a_gpu_computes_a_row", "without a varlen kernel"),
        ("images on the host", "a_gpu_answers", "generate fails: .*device"),
    ],
)
def test_a_check_finds_the_slip_it_is_for(change: str, check: str, words: str) -> None:
    case = family_case("llava-siglip")
    with pytest.raises(FamilyError, match=words):
        getattr(family_checks, check)(broken_case(case, change))


@pytest.mark.parametrize("size", [(48, 48), (90, 90), (60, 60), (60, 30), (31, 90), (20, 20), (300, 200), (50, 49)])
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
