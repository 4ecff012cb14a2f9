"""What every system is given: its configuration, and batches of tensors."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["Batch", "ModelConfig"]


@dataclass(frozen=True)
class ModelConfig:
    """What a model is, apart from its weights; config.json in its folder.

    labels: BIO tags or relations in the order of the scores. levels: channels of the pyramid (empty: text
    only). encoder: the transformers configuration. features: the FeatureSpec, as a mapping, that the model
    was trained on.
    """

    system: str
    task: str
    labels: tuple[str, ...]
    levels: tuple[int, ...]
    relation_head: str
    max_length: int
    encoder: dict[str, Any]
    features: dict[str, Any] | None


@dataclass
class Batch:
    """Tensors of B samples of at most n sub-words and T kept words. `ids` names the samples, for predictions.

    input_ids, attention_mask: (B, n). positions: (B, T), the first sub-word of each word, or (B, 3) [CLS] and
    opening markers. position_mask: (B, T). labels: (B, T) tags or (B,) relations, or None where there is no
    gold. views: pooled pyramids (B, V, C, p, p), or pixels (B, V, 3, S, S) for the end-to-end stage;
    view_mask: (B, V). Both are None in text-only systems. known_mask: view_mask on the CPU, where the others
    are elsewhere: whoever looks into it waits for nothing.
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
