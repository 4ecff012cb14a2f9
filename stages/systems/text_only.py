"""The text-only systems: BERT-CRF for entities, and matching the blanks (MTB) for relations.

They are HMNeT without images: the same encoder, heads and recipe.
"""

import torch
from torch import Tensor, nn

from ..text.encoders.bert import encode
from .batch import Batch, ModelConfig
from .system import System

__all__ = ["MTB", "TextOnly"]


class TextOnly(System):
    """A text encoder and a head. A batch's views are ignored."""

    def states(self, batch: Batch) -> Tensor:
        return encode(self.encoder, batch.input_ids, batch.attention_mask, None)


class MTB(TextOnly):
    """Matching the blanks (Baldini Soares et al., ACL 2019), by the text encoder that is given.

    x = W [H_E1; H_E2] + b, without an activation, goes to the relation head. It is the architecture alone:
    the paper's weights, pretrained by matching blanks, were not released.

    thunlp/OpenNRE, from which the published scores come, clamps the position of a marker that truncation has
    cut off, so that another word stands for the entity; and it repeats words where head and tail overlap.
    Here no marker is ever cut (stages.text.limits).
    """

    def __init__(self, config: ModelConfig, encoder: nn.Module) -> None:
        super().__init__(config, encoder)
        width = self.classifier.in_features
        with torch.random.fork_rng(devices=[]):  # the classifier and dropout draw as in every other system
            self.pair = nn.Linear(width, width)

    def pooled(self, states: Tensor, batch: Batch) -> Tensor:
        pair: Tensor = self.pair(super().pooled(states, batch))
        return pair
