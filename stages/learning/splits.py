"""The samples of one split as a model reads them: encoded, or with shuffled images."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..base.ahead import Made
from ..text.limits import EncodedText, Span
from ..text.reader import TextReader
from .columns import Column, rows_of, taken
from .extras import Extra

__all__ = ["Split", "encode_split", "read_split", "shuffled_images", "without_images"]


@dataclass
class Split:
    """The samples of one split as the model reads them; all sequences are parallel.

    gold: tag sequences over ALL words (NER) or [relation] (RE). image_keys: None where a sample has no usable
    image. pairs: head and tail of each sample, for relations. texts: the samples as the encoder reads them;
    none before `encoded`. extras: what a system reads besides words and features, of any sample. Items may be
    made when they are asked for: a change of one changes nothing.
    """

    name: str
    ids: Sequence[str]
    tokens: Sequence[list[str]]
    gold: Sequence[list[str]]
    groups: Sequence[list[str]]
    image_keys: Sequence[str | None]
    texts: Sequence[EncodedText] = field(default_factory=list)
    extras: tuple[Extra, ...] = ()
    pairs: Sequence[tuple[Span, Span]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, numbers: Sequence[int]) -> "Split":
        """Return the samples of these numbers, in this order."""
        return Split(
            self.name,
            ids=taken(self.ids, numbers),
            tokens=taken(self.tokens, numbers),
            gold=taken(self.gold, numbers),
            groups=taken(self.groups, numbers),
            image_keys=taken(self.image_keys, numbers),
            pairs=taken(self.pairs, numbers) if self.pairs is not None else None,
            texts=taken(self.texts, numbers) if self.texts else [],
            extras=self.extras,
        )

    def encoded(self, reader: TextReader, max_length: int) -> "Split":
        """Return the split with its texts as `reader` encodes them."""
        return replace(self, texts=reader.encode(self.tokens, self.pairs, limit=max_length))


def read_split(samples: pa.Table, name: str, *, task: str) -> Split:
    """Return the split `name` of samples.parquet, its texts not encoded yet."""
    rows = rows_of(samples, "split", name)
    pairs = None
    if task == "re":
        ends = np.column_stack([_ranges(rows["head"]), _ranges(rows["tail"])])
        pairs = Made(len(rows), partial(_pair, ends))
    gold = rows["tags"]
    if task == "re":  # each relation as a list of it alone
        gold = pa.chunked_array(
            [
                pa.ListArray.from_arrays(np.arange(len(chunk) + 1, dtype=np.int32), chunk)
                for chunk in rows["relation"].chunks
            ],
            pa.list_(pa.string()),
        )
    return Split(
        name,
        Column(rows["id"], ""),
        Column(rows["tokens"], []),
        Column(gold, []),
        Column(rows["groups"], []),
        Column(rows["image_key"], None),
        pairs=pairs,
    )


def _ranges(column: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """Return ranges as (rows, 2)."""
    flat = [chunk.flatten().to_numpy() for chunk in column.chunks]
    return np.concatenate([np.zeros(0, np.int32), *flat]).reshape(-1, 2)


def _pair(ends: npt.NDArray[np.int32], row: int) -> tuple[Span, Span]:
    first, last, other_first, other_last = ends[row].tolist()
    return (first, last), (other_first, other_last)


def encode_split(samples: pa.Table, name: str, reader: TextReader, *, task: str, max_length: int) -> Split:
    """Return the split `name` of samples.parquet, its texts as `reader` encodes them."""
    return read_split(samples, name, task=task).encoded(reader, max_length)


def shuffled_images(split: Split, seed: int) -> Split:
    """Return the split with its images dealt out at random among the samples that have one.

    No sample keeps its own image where that can be avoided.
    """
    holders = [i for i, key in enumerate(split.image_keys) if key is not None]
    order = np.random.default_rng(seed).permutation(holders).tolist()
    keys = list(split.image_keys)
    # A rotation of a random order: with distinct images no sample keeps its own.
    for giver, receiver in zip(order, [*order[1:], *order[:1]], strict=True):
        keys[receiver] = split.image_keys[giver]
    return replace(split, image_keys=keys)


def without_images(split: Split) -> Split:
    """Return the split as it is where no sample has an image."""
    return replace(split, image_keys=[None] * len(split))
