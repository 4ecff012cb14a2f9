"""The text-only systems: BERT-CRF for entities, and matching the blanks (MTB) for relations.

They are HMNeT without images: the same encoder, heads and recipe.
"""

from torch import Tensor

from ..text.encoders.bert import encode
from .batch import Batch
from .system import System

__all__ = ["TextOnly"]


class TextOnly(System):
    """A text encoder and a head. A batch's views are ignored."""

    def states(self, batch: Batch) -> Tensor:
        return encode(self.encoder, batch.input_ids, batch.attention_mask, None)
