"""The samples of one split as a model reads them: encoded, or with shuffled images."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from ..text.limits import EncodedText, Span
from ..text.reader import TextReader
from .extras import Extra

__all__ = ["Split", "encode_split", "read_split", "shuffled_images", "without_images"]


@dataclass
class Split:
    """The samples of one split as the model reads them; all lists are parallel.

    gold: tag sequences over ALL words (NER) or [relation] (RE). image_keys: None where a sample has no usable
    image. pairs: head and tail of each sample, for relations. texts: the samples as the encoder reads them;
    none before `encoded`. extras: what a system reads besides words and features, of any sample.
    """

    name: str
    ids: list[str]
    tokens: list[list[str]]
    gold: list[list[str]]
    groups: list[list[str]]
    image_keys: list[str | None]
    texts: list[EncodedText] = field(default_factory=list)
    extras: tuple[Extra, ...] = ()
    pairs: list[tuple[Span, Span]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, numbers: Sequence[int]) -> "Split":
        """Return the samples of these numbers, in this order."""
        return Split(
            self.name,
            ids=[self.ids[i] for i in numbers],
            tokens=[self.tokens[i] for i in numbers],
            gold=[self.gold[i] for i in numbers],
            groups=[self.groups[i] for i in numbers],
            image_keys=[self.image_keys[i] for i in numbers],
            pairs=[self.pairs[i] for i in numbers] if self.pairs is not None else None,
            texts=[self.texts[i] for i in numbers] if self.texts else [],
            extras=self.extras,
        )

    def encoded(self, reader: TextReader, max_length: int) -> "Split":
        """Return the split with its texts as `reader` encodes them."""
        return replace(self, texts=reader.encode(self.tokens, self.pairs, limit=max_length))


def read_split(samples: pa.Table, name: str, *, task: str) -> Split:
    """Return the split `name` of samples.parquet, its texts not encoded yet."""
    rows = [row for row in samples.to_pylist() if row["split"] == name]
    return Split(
        name,
        [row["id"] for row in rows],
        [row["tokens"] for row in rows],
        [row["tags"] if task == "ner" else [row["relation"]] for row in rows],
        [row["groups"] or [] for row in rows],
        [row["image_key"] for row in rows],
        pairs=[(tuple(row["head"]), tuple(row["tail"])) for row in rows] if task == "re" else None,
    )


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
