"""Compare the rows of a base's embedding and head with its tokenizer, before anything is computed.

Only headers of weights and the files of the tokenizer are read. Building the model adds the rows that a base lacks
(mantis/models/weights/loading.py). Here a person learns of them, and of a base to which no row can be added.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mantis.config.model_settings import ModelSettings
from mantis.errors import ConfigError
from mantis.store.base import ObjectStore
from mantis.store.opening import open_store

logger = logging.getLogger(__name__)

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
# Names of tensors end so in transformers. Idefics 1 keeps the rows of added tokens apart.
EMBEDDING = (".embed_tokens.weight", ".embed_tokens.additional_embedding.weight")
HEAD = ("lm_head.weight", "lm_head.additional_fc.weight")
SHOWN = 5  # tokens that a message names


@dataclass(frozen=True, kw_only=True)
class BaseRows:
    """Rows of a base. Tied weights have the same number of both."""

    embedding: int
    head: int


def check_base_rows(store: ObjectStore, settings: ModelSettings) -> None:
    """Check that every token of the run has a row, or will get one. A message names the tokens that get new rows.

    A model from scratch is built for its tokenizer, so there is nothing to check.

    Raises:
        ConfigError: embedding and head have different numbers of rows, and one has too few. Or the tokenizer of a
            language model has fewer tokens than there are rows.
        ConversionError: a file of weights is damaged.
        InputError: the base has no tokenizer.
    """
    from mantis.models.registry import family
    from mantis.models.weights.mirror import resolved

    if settings.scratch_shape is not None:
        return
    address = resolved(store, settings).base
    rows = rows_of(open_store(address))
    if rows is None:
        logger.warning("model.base = %r: its rows of tokens cannot be read before the training", settings.base)
        return
    own = family(settings.family).special_tokens()
    tokens = _tokens(address, own)
    needed = max(tokens.values()) + 1
    if rows.embedding != rows.head and min(rows.embedding, rows.head) < needed:
        raise ConfigError(
            f"model.base = {settings.base!r}: its tokenizer needs {needed:,} rows. The embedding has "
            f"{rows.embedding:,}, the head {rows.head:,}.",
            remedy="Use the weights and the tokenizer of one model.",
        )
    if settings.vision and len(tokens) < rows.embedding:
        raise ConfigError(
            f"model.base = {settings.base!r}: its tokenizer has {len(tokens):,} tokens, its embedding "
            f"{rows.embedding:,} rows.",
            remedy="Use the tokenizer of the base model.",
        )
    _report(settings.base, {token: number for token, number in tokens.items() if number >= rows.embedding}, own)


def _report(base: str, new: Mapping[str, int], own: Sequence[str]) -> None:
    from mantis.models.weights.loading import PAD

    if not new:
        return
    names = sorted(new, key=new.__getitem__)
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    logger.info("model.base = %r: embedding and head get %d new rows, for %s", base, len(names), shown)
    foreign = [name for name in names if name not in own and name != PAD]
    if foreign:
        logger.warning("The base's own tokenizer has %d tokens without a row, such as %s", len(foreign), foreign[0])


def rows_of(base: ObjectStore) -> BaseRows | None:
    """The rows of embedding and head in a model's folder. None if neither weights nor configuration name them."""
    shapes = _shapes(base)
    embedding, head = (
        sum(shape[0] for name, shape in shapes.items() if name.endswith(ends)) for ends in (EMBEDDING, HEAD)
    )
    if embedding:
        return BaseRows(embedding=embedding, head=head or embedding)
    return _configured(json.loads(base.get("config.json")))


def _configured(config: dict[str, Any]) -> BaseRows | None:
    """The rows by config.json, for weights whose names of tensors cannot be read without reading all of them."""
    text = config.get("text_config") or config
    rows = text.get("vocab_size") or config.get("vocab_size")
    if rows is None:
        return None
    total = int(rows) + int(config.get("additional_vocab_size") or 0)
    return BaseRows(embedding=total, head=total)


def _shapes(base: ObjectStore) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors in the base's safetensors files, from their headers."""
    from components.conversion.zero.byte_sources import StoreSource
    from components.conversion.zero.safetensors_index import read_safetensors

    there = {entry.key: entry.size for entry in base.children("")[0]}
    if INDEX in there:
        names = set(json.loads(base.get(INDEX))["weight_map"].values()) & there.keys()
    else:
        names = {WHOLE} & there.keys()
    if not names:
        return {}
    sources = {name: StoreSource(base, name, there[name]) for name in sorted(names)}
    return {name: tensor.shape for name, tensor in read_safetensors(sources, origin=base.uri("")).items()}


def _tokens(address: str, own: Sequence[str]) -> dict[str, int]:
    """The tokens of the run by their ids: those of the base, and those that the family adds."""
    from mantis.models.weights.loading import base_tokenizer, tokenizer_folder

    with tokenizer_folder(address) as folder:
        vocabulary: dict[str, int] = base_tokenizer(folder, own).get_vocab()
    return vocabulary
