"""Read a mixture: the lengths of all samples at once, the samples themselves at random."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from mantis.artifacts.manifest import Manifest
from mantis.dataset.row_cache import GIGABYTE, RowCache, cache_folder
from mantis.models.conversation import IMAGE_MARK, Conversation, ImageSize, Turn, learned_from
from mantis.store.base import ObjectStore, concurrently, download_tree
from mantis.store.lance_tables import open_table

INDEX = "index.lance"  # the samples that training sees
COLUMNS = ["id", "roles", "contents", "learned", "images", "widths", "heights"]
Lengths = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class TrainingSample:
    """A conversation cut to its planned turns, and the encoded images of those turns. `weight` multiplies its loss."""

    conversation: Conversation
    images: list[bytes]
    weight: float


class MixtureReader:
    """The samples of a mixture, by their position in its index.

    `tokens` (image tokens expanded), `targets`, `images` and `patches` are arrays [len(reader)]. `ids` and `subsets`
    are lists of that length. Each process opens the tables itself, on first use, because Lance does not survive a
    fork. Up to `cache_gb` gigabytes of rows are kept on this machine's disk. The index HELD_OUT_INDEX has the rows that
    training never sees.
    """

    def __init__(
        self, store: ObjectStore, manifest: Manifest, *, cache_gb: float = 0.0, index_name: str = INDEX
    ) -> None:
        self._store = store
        self._cache = RowCache(cache_folder(), limit=int(cache_gb * GIGABYTE))
        self._prefix = manifest.key
        self._datasets = {name: dataset.key for name, dataset in manifest.inputs.items()}
        self._tables: dict[str, Any] = {}
        index = open_table(store, f"{self._prefix}/{index_name}").to_table()
        self.ids: list[str] = index["id"].to_pylist()
        self.subsets: list[str] = index["subset"].to_pylist()
        self.tokens: Lengths = index["tokens"].to_numpy()
        self.targets: Lengths = index["targets"].to_numpy()
        self.images: Lengths = index["images"].to_numpy()
        self.patches: Lengths = index["patches"].to_numpy()
        self._rows: NDArray[np.int64] = index["row"].to_numpy()
        self._turns: Lengths = index["turns"].to_numpy()
        self._learned_from: Lengths = index["learned_from"].to_numpy()
        self._weights: NDArray[np.float64] = index["weight"].to_numpy()

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, positions: Sequence[int]) -> list[TrainingSample]:
        """Read the samples at `positions`, in that order; a position may occur twice."""
        wanted: dict[str, set[int]] = {}
        for at in positions:
            wanted.setdefault(self.subsets[at], set()).add(int(self._rows[at]))
        # A batch touches most subsets. Reading them one after another would wait for the store each time.
        parts = concurrently(lambda part: self._read(part[0], sorted(part[1])), wanted.items())
        found = dict(zip(wanted, parts, strict=True))
        return [self._sample(at, found[self.subsets[at]][int(self._rows[at])]) for at in positions]

    def _sample(self, at: int, row: dict[str, Any]) -> TrainingSample:
        """The sample at position `at`, from its row of data.lance."""
        whole = conversation_of(row, turns=int(self._turns[at]))
        conversation = replace(whole, turns=learned_from(whole.turns, int(self._learned_from[at])))
        images = row["images"][: len(conversation.sizes)]
        return TrainingSample(conversation=conversation, images=images, weight=float(self._weights[at]))

    def _read(self, subset: str, rows: list[int]) -> dict[int, dict[str, Any]]:
        """Read rows of one subset's table, by their number in the table."""

        def read(missing: list[int]) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = self._table(subset).take(missing, columns=COLUMNS).to_pylist()
            return found

        return self._cache.rows(self._store.uri(self._datasets[subset]), rows, read)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerFast:
        with tempfile.TemporaryDirectory() as folder:
            download_tree(self._store, f"{self._prefix}/tokenizer", Path(folder))
            return PreTrainedTokenizerFast.from_pretrained(folder)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer that counted the lengths."""
        return self._tokenizer

    def _table(self, subset: str) -> Any:
        if subset not in self._tables:
            self._tables[subset] = open_table(self._store, f"{self._datasets[subset]}/data.lance")
        return self._tables[subset]


def conversation_of(row: dict[str, Any], *, turns: int | None = None) -> Conversation:
    """Return the first `turns` turns (None: all) of a row of data.lance, with the sizes of their images.

    A system text stands before the turns and is none of them.
    """
    first = 1 if row["roles"][:1] == ["system"] else 0
    end = None if turns is None else first + turns
    fields = (row[name][first:end] for name in ("roles", "contents", "learned"))
    kept = tuple(
        Turn(role=role, content=content, learned=learned) for role, content, learned in zip(*fields, strict=True)
    )
    shown = sum(turn.content.count(IMAGE_MARK) for turn in kept)
    sizes = zip(row["widths"][:shown], row["heights"][:shown], strict=True)
    return Conversation(
        id=row["id"],
        system=row["contents"][0] if first else "",
        turns=kept,
        sizes=tuple(ImageSize(width=width, height=height) for width, height in sizes),
    )
