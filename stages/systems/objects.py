"""How images enter a system as vectors: the cells of a grid, whole views, and objects with label and box.

What is absent enters as zeros whatever the arrays hold there: a product with the mask would keep a NaN.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...cache.spec import ALL, IMAGE, OBJECTS, SCENE
from ...manifests.errors import InputError
from .batch import Batch, ModelConfig

__all__ = [
    "GEOMETRY",
    "RESERVED",
    "UNKNOWN",
    "ObjectEmbedding",
    "cells",
    "check_regions",
    "entering",
    "first_object",
    "of_image",
    "of_objects",
    "regions",
    "view_vectors",
    "vocabulary_ids",
]

GEOMETRY = 8
"""The numbers of a box: x0, y0, x1, y1, width, height, area as shares of the image, and the score."""

UNKNOWN, RESERVED = 1, 2
"""Of labels and predicates: the id of one that is not in the vocabulary, and of its first one; 0 is none."""


def vocabulary_ids(names: Sequence[str]) -> dict[str, int]:
    """Return the id of each label or predicate of a vocabulary."""
    return {name: number for number, name in enumerate(names, start=RESERVED)}


def entering(values: Tensor, mask: Tensor) -> Tensor:
    """Return `values` with zeros where `mask` is false, as floats of at least 32 bits.

    values: (*mask.shape, ...), of any float type; mask: bool. No gradient reaches what is absent.
    """
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    return torch.where(mask.reshape(*mask.shape, *[1] * (values.ndim - mask.ndim)), values, 0.0)


def check_regions(config: ModelConfig, wanted: str) -> None:
    """Raise InputError where the features of a model do not show what its system looks at.

    wanted: cache.spec.IMAGE, the whole image, or OBJECTS.
    """
    shown = (config.features or {}).get("regions", ALL)
    fitting_sets = (ALL, OBJECTS, SCENE) if wanted == OBJECTS else (ALL, wanted)
    if shown not in fitting_sets:
        what, fitting = ("the whole image", "grid") if wanted == IMAGE else ("objects", "vector")
        raise InputError(
            f"{config.system} looks at {what}, which its features do not show (their views: {shown!r}); "
            f"train it with --features {fitting}"
        )


def of_image(view_mask: Tensor) -> Tensor:
    """Return which present views, (B, V) bool, show the whole image."""
    return torch.cat([view_mask[:, :1], torch.zeros_like(view_mask[:, 1:])], dim=1)


def of_objects(view_mask: Tensor, config: ModelConfig) -> Tensor:
    """Return which present views, (B, V) bool, show an object."""
    first = first_object(config)
    return torch.cat([torch.zeros_like(view_mask[:, :first]), view_mask[:, first:]], dim=1)


def cells(batch: Batch, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Return the cells of the whole image's last level, (B, p*p, D), row-major, and their mask (B, p*p).

    Without views there are no cells.
    """
    maps, mask = _last_level(batch, config, slice(1))  # shape: (B, 1 or 0, D, p, p)
    sequence = maps.flatten(-2).transpose(-1, -2).flatten(1, 2)
    return sequence, mask.repeat_interleave(maps.shape[-1] * maps.shape[-2], dim=1)


def view_vectors(batch: Batch, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Return a vector of every view, (B, V, D), the mean of its last level's cells, and the view mask."""
    maps, mask = _last_level(batch, config, slice(None))
    return maps.mean(dim=(-2, -1)), mask


def regions(batch: Batch, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Return the vectors of an image's objects, (B, N, D), best first, and their mask (B, N).

    The view of the whole image is left out.
    """
    maps, mask = _last_level(batch, config, slice(first_object(config), None))
    return maps.mean(dim=(-2, -1)), mask


def first_object(config: ModelConfig) -> int:
    """Return which view is the first object: the second one where the first is the whole image."""
    return 1 if (config.features or {}).get("regions", ALL) == ALL else 0


def _last_level(batch: Batch, config: ModelConfig, chosen: slice) -> tuple[Tensor, Tensor]:
    """Return the last level of the chosen views, (B, V, D, p, p), zero where absent, and their mask."""
    channels = config.levels[-1]
    if batch.views is None or batch.view_mask is None:
        device = batch.input_ids.device
        nothing = torch.zeros(len(batch.input_ids), 0, dtype=torch.bool, device=device)
        return torch.zeros(len(nothing), 0, channels, 1, 1, device=device), nothing
    mask = batch.view_mask[:, chosen]
    return entering(batch.views[:, chosen, -channels:], mask), mask


class ObjectEmbedding(nn.Module):
    """o = W_f f + E[label] + W_g g: an object from its region's features, its label and its box.

    labels: the ids of labels, of which 0 is no object; 0: no part of it. geometry: whether the box is one.
    """

    def __init__(self, features: int, width: int, *, labels: int = 0, geometry: bool = False) -> None:
        super().__init__()
        self.features = nn.Linear(features, width)
        self.labels = nn.Embedding(labels, width, padding_idx=0) if labels else None
        self.geometry = nn.Linear(GEOMETRY, width, bias=False) if geometry else None

    def forward(self, vectors: Tensor, mask: Tensor, labels: Tensor | None, boxes: Tensor | None) -> Tensor:
        """Return the objects (B, N, width), zero where `mask`, (B, N), is false.

        vectors: (B, N, D). labels: (B, N) ids. boxes: (B, N, 8), whose last number is the score.
        """
        dtype = self.features.weight.dtype
        found: Tensor = self.features(entering(vectors, mask).to(dtype))
        if self.labels is not None and labels is not None:
            found = found + self.labels(torch.where(mask, labels, 0))
        if self.geometry is not None and boxes is not None:
            found = found + self.geometry(entering(boxes, mask).to(dtype))
        return entering(found, mask)
