"""Models and tokenizers from weights in a folder or a store.

A folder has the layout of `save_pretrained` and of the hub. It must hold every tensor of the model, because
transformers would fill a missing tensor with random numbers. Loading asks the hub for nothing and runs no remote code.
"""

import fcntl
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from mantis.artifacts.tensor_files import check_names
from mantis.config.model_settings import ModelSettings
from mantis.errors import ConfigError, InputError
from mantis.models.family import Family, Processor
from mantis.store.base import ObjectStore, download_tree
from mantis.store.opening import open_store

logger = logging.getLogger(__name__)

PAD = "<|pad|>"  # what the official stage 1 adds to LLaMA-3's vocabulary (train_mllava.py, do_pretrain)
SHOWN = 5  # tensors that an error names
TEXTS = (".json", ".jinja", ".model", ".txt")  # files of a tokenizer
MAX_TEXT = 256_000_000  # bytes of such a file; large vocabularies have 30 MB


def model_folder(address: str) -> Path:
    """The local folder of a model: `address` itself, or its copy where it is the URL of a store.

    A copy is made once per machine and state of the objects, below MANTIS_CACHE, and appears whole or not at all.

    Raises:
        InputError: no config.json there.
        StoreError: the store cannot be read.
    """
    folder = Path(address.removeprefix("file://"))
    if address.startswith("s3://"):
        store = open_store(address)
        entries = sorted(store.list(""), key=lambda entry: entry.key)
        state = json.dumps([address, [[entry.key, entry.size, entry.version] for entry in entries]])
        folder = _cache() / hashlib.sha256(state.encode()).hexdigest()[:32]
        if entries:
            _copy_once(store, sum(entry.size for entry in entries), folder)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{address} holds no config.json: it is no model folder of transformers.",
            remedy="Name a folder that save_pretrained wrote, or that was downloaded whole from the hub.",
        )
    return folder


@contextmanager
def tokenizer_folder(address: str) -> Iterator[Path]:
    """A local folder with the texts of the model or tokenizer at `address`, without weights.

    Raises:
        StoreError: the store cannot be read.
    """
    if not address.startswith("s3://"):
        yield Path(address.removeprefix("file://"))
        return
    store = open_store(address)
    with tempfile.TemporaryDirectory(prefix="mantis-tokenizer-") as folder:
        for entry in store.children("")[0]:
            if entry.key.endswith(TEXTS) and entry.size <= MAX_TEXT:
                store.get_file(entry.key, Path(folder) / entry.key)
        yield Path(folder)


def _cache() -> Path:
    return Path(os.environ.get("MANTIS_CACHE", "~/.cache/mantis")).expanduser() / "models"


def _copy_once(store: ObjectStore, size: int, folder: Path) -> None:
    """Bring the store's objects to `folder`, unless they are there; the ranks of a node wait for the first of them."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return
        logger.info("Copying %s bytes of %s to %s", f"{size:,}", store.url, folder)
        with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
            whole = Path(partial) / "model"
            download_tree(store, "", whole)
            whole.rename(folder)


def load_whole(
    kind: type[PreTrainedModel], folder: Path, *, ignored: tuple[str, ...] = (), **options: Any
) -> PreTrainedModel:
    """A model of class `kind`, fp32, whose every tensor comes from `folder`.

    Tensors of the folder whose names begin with one of `ignored` may be left over.

    Raises:
        InputError: a tensor is missing, left over or of another shape; names it, and both shapes.
        IntegrityError: a file of weights wants to run code.
    """
    for pickled in sorted(folder.glob("*.bin")):
        check_names(pickled)
    try:
        model, found = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that all of them are named, not only the first
            **options,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{folder} cannot be read as {kind.__name__}: {error}", remedy="Bring the folder again, whole."
        ) from None
    extra = [name for name in found["unexpected_keys"] if not name.startswith(ignored)]
    check_tensors(folder, kind.__name__, found["missing_keys"], extra, found["mismatched_keys"])
    return model


def check_tensors(
    folder: Path, kind: str, missing: Iterable[str], extra: Iterable[str], wrong: Iterable[tuple[str, Any, Any]]
) -> None:
    """Check that a folder held exactly the tensors of a `kind`; `wrong` has name, shape there and shape expected.

    Raises:
        InputError: it did not; names the first tensors.
    """
    problems = [
        *(f"{name} is missing" for name in sorted(missing)),
        *(f"{name} is no tensor of {kind}" for name in sorted(extra)),
        *(f"{name} is {list(there)}, expected {list(wanted)}" for name, there, wanted in sorted(wrong)),
    ]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise InputError(
            f"{folder} does not hold this {kind}: {'; '.join(problems[:SHOWN])}{more}.",
            remedy="Its weights and its config.json belong to different models, or a part was not copied.",
        )


def ready_to_train(family: Family, model: PreTrainedModel, processor: Processor) -> PreTrainedModel:
    """The model in fp32 and training mode, ready for packed batches and with the ends of answers for `generate`."""
    check_rows(model, processor)
    family.for_packing(model)
    model.generation_config.eos_token_id = processor.end_of_answer
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model.float().train()


def grow(model: PreTrainedModel, tokens: int) -> None:
    """Rows for the tokens that were added to the vocabulary, drawn from torch's current seed.

    Raises:
        ConfigError: there are fewer tokens than rows.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if tokens < rows:
        raise ConfigError(
            f"The tokenizer has {tokens:,} tokens, the model's embedding {rows:,} rows.",
            remedy="Use the tokenizer of the base model.",
        )
    if tokens > rows:
        model.resize_token_embeddings(tokens, mean_resizing=False)


def add_missing_rows(model: PreTrainedModel, processor: Processor, *, seed: int) -> None:
    """Add rows of embedding and head for tokens beyond those of the base, drawn from `seed` as transformers does.

    A base may have rows that no token uses; they stay.
    """
    needed = rows_needed(processor)
    if needed > model.get_input_embeddings().weight.shape[0]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            grow(model, needed)


def rows_needed(processor: Processor) -> int:
    """The largest token id of the tokenizer, plus one."""
    return max(int(token) for token in processor.tokenizer.get_vocab().values()) + 1


def check_rows(model: PreTrainedModel, processor: Processor) -> None:
    """Check that the embedding and the head have a row for every token.

    Raises:
        ConfigError: one of them has too few.
    """
    needed, embedding, head = rows_needed(processor), model.get_input_embeddings(), model.get_output_embeddings()
    # Idefics 1 keeps the rows of added tokens apart.
    found = {
        "embedding": embedding.weight.shape[0] + getattr(embedding, "num_additional_embeddings", 0),
        "head": head.weight.shape[0] + getattr(head, "out_additional_features", 0),
    }
    for name, rows in found.items():
        if rows < needed:
            raise ConfigError(
                f"The tokenizer needs {needed:,} rows, but the model's {name} has {rows:,}.",
                remedy="The family's build() has to add rows for the tokens that the base lacks.",
            )


def check_shape(settings: ModelSettings, expected: Mapping[str, tuple[Any, Any]]) -> None:
    """Data preparation counts tokens by the settings, so the weights have to agree with them.

    `expected`: what the model's configuration says and what the settings say, by the field's name.

    Raises:
        ConfigError: they differ; names the fields.
    """
    wrong = [f"{name} is {there!r}, not {asked!r}" for name, (there, asked) in expected.items() if there != asked]
    if wrong:
        raise ConfigError(
            f"model.base = {settings.base!r} is not what model.family and model.image say: {'; '.join(wrong)}.",
            remedy="Set model.family and the fields of model.image to those of the model.",
        )


def base_tokenizer(folder: Path, special_tokens: Iterable[str]) -> PreTrainedTokenizerFast:
    """The base's own tokenizer as its tokenizer.json says, with the family's tokens and a padding token.

    New tokens stand at the end of the vocabulary. A token that is there only as a piece that text is never cut into,
    such as a byte's `<0x04>`, keeps its id.

    Raises:
        InputError: no fast tokenizer there.
    """
    try:
        # AutoTokenizer of transformers 5 rebuilds LLaMA's and Mistral's tokenizers, and cuts text differently then.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no tokenizer: {error}", remedy="Bring the folder again, whole.") from None
    new = [token for token in special_tokens if token not in tokenizer.get_added_vocab()]
    tokenizer.add_special_tokens({"additional_special_tokens": new}, replace_extra_special_tokens=False)
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": PAD})
    return tokenizer
