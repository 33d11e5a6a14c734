"""Bases laid out as the published ones, whose vocabulary lacks tokens of Mantis: every token gets a trained row."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import PreTrainedModel

from mantis.config.model_settings import FromScratch, ModelSettings
from mantis.errors import ConfigError
from mantis.models.families.flamingo.model import Flamingo
from mantis.models.family import Family, Processor
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family, family_spec
from mantis.models.verification.family_checks import check_sample, pack
from mantis.models.weights.loading import base_tokenizer, check_rows, rows_needed

# family -> the tokens that its published base does not have
LACKING = {
    "flamingo": ["<|endofchunk|>"],
    "fuyu": ["|IMAGE|", "|ENDOFIMAGE|"],
    "idefics2": ["<end_of_utterance>"],
}


@pytest.fixture(params=LACKING)
def name(request: pytest.FixtureRequest) -> str:
    """A family whose base lacks tokens."""
    return str(request.param)


@pytest.fixture
def base(name: str, tmp_path: Path) -> Path:
    """A tiny base of the family with its tokenizer. Idefics 1 keeps two of its tokens in additional rows."""
    kind = family(name)
    known = [token for token in kind.special_tokens() if token not in LACKING[name]]
    tokenizer = train_tokenizer(["What? A cat."] * 3, vocabulary=300, special_tokens=known)
    settings = ModelSettings(
        family=name,
        prompt=kind.template,
        image=family_spec(name).small_image,
        from_scratch=FromScratch(text_width=32, vision_width=32, vision_heads=2, text_heads=2),
    )
    whole = train_tokenizer(["What? A cat."] * 3, vocabulary=300, special_tokens=kind.special_tokens())
    model = kind.build(kind.processor(whole, settings), seed=3)
    if isinstance(kind, Flamingo):
        as_published(model, rows=len(tokenizer), apart=2)
    else:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def as_published(model: Any, *, rows: int, apart: int) -> None:
    """Give Idefics `rows` rows, `apart` of them additional ones; an untied head, as idefics-9b has."""
    config, embedding, head = model.config, model.model.embed_tokens, model.lm_head
    plain = rows - apart
    for module, kept in ((embedding, "additional_embedding"), (head, "additional_fc")):
        weight = module.weight.detach()[:rows].clone()
        module.weight = torch.nn.Parameter(weight[:plain])
        part = (
            torch.nn.Embedding(apart, weight.shape[1])
            if module is embedding
            else torch.nn.Linear(weight.shape[1], apart, bias=False)
        )
        part.weight = torch.nn.Parameter(weight[plain:])
        setattr(module, kept, part)
    embedding.num_embeddings = head.out_features = config.vocab_size = plain
    embedding.num_additional_embeddings = head.out_additional_features = config.additional_vocab_size = apart


class Built(NamedTuple):
    """A family, its processor for a base, and the model that starts from the base."""

    family: Family
    processor: Processor
    model: PreTrainedModel


def build(name: str, base: Path, seed: int = 5) -> Built:
    kind = family(name)
    tokenizer = base_tokenizer(base, kind.special_tokens())
    settings = ModelSettings(family=name, prompt=kind.template, image=family_spec(name).small_image, base=str(base))
    processor = kind.processor(tokenizer, settings)
    return Built(kind, processor, kind.build(processor, seed=seed))


def test_every_token_of_the_data_has_a_row(name: str, base: Path) -> None:
    kind, processor, model = build(name, base)
    sample = check_sample(processor, 1, 2)
    lacking = [processor.tokenizer.convert_tokens_to_ids(token) for token in LACKING[name]]
    assert set(lacking) <= set(sample.encoding.input_ids)
    logits = kind.forward(model, pack([sample]))
    assert logits.shape[1] >= rows_needed(processor) > max(sample.encoding.input_ids)
    assert torch.isfinite(logits).all()


def test_new_rows_learn_in_embedding_and_head_and_are_loaded_again(name: str, base: Path, tmp_path: Path) -> None:
    kind, processor, model = build(name, base)
    batch = pack([check_sample(processor, 1, 2)])
    model.zero_grad()
    torch.nn.functional.cross_entropy(kind.forward(model, batch), batch.targets).backward()
    new = rows_needed(processor) - len(LACKING[name])
    embedding, head = (model.get_input_embeddings(), model.get_output_embeddings())
    for module, apart in ((embedding, "additional_embedding"), (head, "additional_fc")):
        grad = module.weight.grad
        if hasattr(module, apart):
            grad = torch.cat([grad, getattr(module, apart).weight.grad])
        assert grad[new].abs().sum() > 0
    model.save_pretrained(tmp_path / "base-2")
    processor.tokenizer.save_pretrained(tmp_path / "base-2")
    again = build(name, tmp_path / "base-2", seed=6)
    assert all(torch.equal(value, again.model.state_dict()[key]) for key, value in model.state_dict().items())


def test_the_rows_of_the_base_stay(name: str, base: Path) -> None:
    model = build(name, base).model
    before, after = type(model).from_pretrained(base, dtype=torch.float32).state_dict(), model.state_dict()
    assert len(before) > 20
    for key, value in before.items():
        rows = len(value) if value.ndim else 0
        assert torch.equal(after[key][:rows] if rows else after[key], value), key


def test_the_seed_draws_the_new_rows(name: str, base: Path) -> None:
    first, again, other = (build(name, base, seed).model.state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_a_model_without_a_row_for_a_token_is_an_error(name: str, base: Path) -> None:
    _, processor, model = build(name, base)
    processor.tokenizer.add_special_tokens({"additional_special_tokens": ["<more>"]})
    with pytest.raises(ConfigError, match="rows, but the model's embedding has"):
        check_rows(model, processor)
