"""From the samples of a split to batches of tensors, bucketed by length and padded as little as possible."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..systems.batch import Batch
from ..text.limits import EncodedText
from .splits import Split

__all__ = ["Visuals", "batches", "bucketed_order"]

# Batches whose samples are sorted by length together: large enough for little padding, small enough for a
# random order.
_BATCHES_PER_BUCKET = 50

_CPU = torch.device("cpu")

# A GPU multiplies tiles; its kernels for bf16 want whole ones.
_TEXT_FITS = 8


class Visuals(Protocol):
    """Where a batch's images come from: the feature cache, or pixels for the end-to-end stage."""

    def __contains__(self, key: object, /) -> bool: ...

    def gather(self, keys: Sequence[str | None]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return the views (B, V, ...) of a batch and their mask (B, V).

        A key that is None or unknown has no view.
        """
        ...


def bucketed_order(lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> list[list[int]]:
    """Return batches of sample numbers, in a random order that holds texts of like length together.

    Every sample is in exactly one.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    bucket = batch_size * _BATCHES_PER_BUCKET
    groups: list[list[int]] = []
    for start in range(0, len(order), bucket):
        members = sorted(order[start : start + bucket], key=lambda sample: lengths[sample])
        groups += [members[i : i + batch_size] for i in range(0, len(members), batch_size)]
    return [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]


def batches(
    split: Split,
    order: Sequence[Sequence[int]],
    *,
    task: str,
    pad_id: int,
    label_ids: dict[str, int] | None,
    visuals: Visuals | None,
    device: torch.device = _CPU,
) -> Iterator[Batch]:
    """Yield the batches of sample numbers in `order` as tensors on the CPU, as `device` reads them best.

    label_ids: None where no gold is needed. visuals: None for text only.
    """
    fits = 1 if device.type == "cpu" else _TEXT_FITS
    for members in order:
        keys = [split.image_keys[i] for i in members]
        texts = [_text_of(split, i) for i in members]
        length = -(-max(len(text.input_ids) for text in texts) // fits) * fits
        input_ids = _padded([text.input_ids for text in texts], pad_id, length)
        positions = _padded([text.positions for text in texts], 0)
        labels = None
        if label_ids is not None and task == "ner":
            labels = _padded(
                [[label_ids[tag] for tag in split.gold[i][: split.texts[i].words]] for i in members], 0
            )
        elif label_ids is not None:
            labels = torch.tensor([label_ids[split.gold[i][0]] for i in members])
        views = view_mask = None
        if visuals is not None:
            values, mask = visuals.gather(keys)
            views, view_mask = torch.from_numpy(values), torch.from_numpy(mask)
        batch = Batch(
            input_ids,
            _mask([len(text.input_ids) for text in texts], length),
            positions,
            _mask([len(text.positions) for text in texts]),
            labels,
            views,
            view_mask,
            list(members),
            **_more(split, members, texts, keys, length),
        )
        yield batch.pinned() if device.type == "cuda" else batch


def _text_of(split: Split, number: int) -> EncodedText:
    text = split.texts[number]
    for extra in split.extras:
        text = extra.text(text, split.image_keys[number])
    return text


def _more(
    split: Split,
    members: Sequence[int],
    texts: Sequence[EncodedText],
    keys: Sequence[str | None],
    length: int,
) -> dict[str, Tensor]:
    """Return the fields of a batch that some systems alone read."""
    found: dict[str, Tensor] = {}
    if texts[0].characters is not None:
        found["characters"] = _padded_twice([text.characters or [] for text in texts], length)
    if texts[0].spans is not None:
        found["spans"] = torch.tensor([text.spans for text in texts])
    for extra in split.extras:
        found.update(extra.gather([split.ids[i] for i in members], keys, texts, length))
    return found


def _padded_twice(rows: Sequence[Sequence[Sequence[int]]], length: int) -> Tensor:
    """Return lists of at most `length` lists of ids as (B, length, c), filled with 0."""
    width = max(len(ids) for row in rows for ids in row)
    values = np.zeros((len(rows), length, width), np.int64)
    for i, row in enumerate(rows):
        for j, ids in enumerate(row):
            values[i, j, : len(ids)] = ids
    return torch.from_numpy(values)


def _padded(rows: Sequence[Sequence[int]], value: int, width: int = 0) -> Tensor:
    width = max(width, *map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def _mask(lengths: Sequence[int], width: int = 0) -> Tensor:
    return torch.arange(max(width, *lengths))[None, :] < torch.tensor(lengths)[:, None]
