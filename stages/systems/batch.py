"""What every system is given: its configuration, and batches of tensors."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["Batch", "ModelConfig"]


@dataclass(frozen=True)
class ModelConfig:
    """What a model is, apart from its weights; config.json in its folder.

    labels: BIO tags or relations in the order of the scores. levels: channels of the pyramid (empty: text
    only). encoder: the transformers configuration, or the sizes of a table of words. features: the
    FeatureSpec, as a mapping, that the model was trained on. options: what this system alone is built with,
    the vocabulary of its objects for example. made_by: how each stage made what the model reads (see
    stages.learning.made_by), so that posts can be made into the same; empty where it is not known.
    """

    system: str
    task: str
    labels: tuple[str, ...]
    levels: tuple[int, ...]
    relation_head: str
    max_length: int
    encoder: dict[str, Any]
    features: dict[str, Any] | None
    options: dict[str, Any] = field(default_factory=dict)
    made_by: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise TypeError where made_by is not what stages.learning.made_by makes: the file was changed."""
        for stage, made in self.made_by.items():
            if not isinstance(made, dict) or not isinstance(made.get("parameters"), dict):
                raise TypeError(f"its made_by does not say the parameters of {stage}")

    @property
    def qualifiers(self) -> list[str]:
        """Return what every table says in brackets after the system's name: what it was trained without."""
        return list(self.options.get("qualifiers", ()))


@dataclass
class Batch:
    """Tensors of B samples of at most n sub-words and T kept words. `ids` names the samples, for predictions.

    Masks are true where something is present; what is absent holds any values.

    input_ids, attention_mask: (B, n). positions: (B, T), the first sub-word of each word, or (B, 3) [CLS] and
    opening markers. position_mask: (B, T). labels: (B, T) tags or (B,) relations, or None where there is no
    gold. views: pooled pyramids (B, V, C, p, p), or pixels (B, V, 3, S, S) for the end-to-end stage;
    view_mask: (B, V). Both are None in text-only systems. known_mask: view_mask on the CPU, where the others
    are elsewhere: whoever looks into it waits for nothing.

    Systems on words have the ids of words for sub-words, and `characters`, (B, n, c), 0 where there is none.
    spans: (B, 2, 2), the half-open ranges of words of head and tail, for their relations.

    Systems on objects have, for at most N objects of an image, best first: object_labels, (B, N), 0 where
    absent; object_mask, (B, N); object_geometry, (B, N, 8), x0, y0, x1, y1, width, height and area as shares
    of the image, and the score; object_edges, (B, N, N), the predicate of subject i and object j, 0 for none;
    structure, (B, N, n), the alignment of objects with sub-words.
    """

    input_ids: Tensor
    attention_mask: Tensor
    positions: Tensor
    position_mask: Tensor
    labels: Tensor | None
    views: Tensor | None
    view_mask: Tensor | None
    ids: list[int]
    known_mask: Tensor | None = None
    characters: Tensor | None = None
    spans: Tensor | None = None
    object_labels: Tensor | None = None
    object_mask: Tensor | None = None
    object_geometry: Tensor | None = None
    object_edges: Tensor | None = None
    structure: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`: as soon as it is there, where it is pinned."""
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        return moved if device.type == "cpu" else replace(moved, known_mask=self.view_mask)

    def pinned(self) -> "Batch":
        """Return the batch in memory that a GPU reads by itself, while this process goes on."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        changed: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)
