"""The systems on text alone: BERT-CRF for entities, and matching the blanks (MTB) for relations.

They are HMNeT without images: the same encoder, heads and recipe. `bert-labels` is the control that reads
images as text: the labels of the detected objects stand behind it, as a second segment.
"""

import torch
from torch import Tensor, nn

from ..text.encoders.bert import encode
from .batch import Batch, ModelConfig
from .system import System

__all__ = ["BertLabels", "TextOnly"]


class TextOnly(System):
    """BERT-CRF, or MTB (Baldini Soares et al., ACL 2019), by the task. A batch's views are ignored.

    In MTB x = W [H_E1; H_E2] + b, without an activation, goes to the relation head. It is the architecture
    alone: the paper's weights, pretrained by matching blanks, were not released.

    thunlp/OpenNRE, from which MTB's published scores come, clamps the position of a marker that truncation
    has cut off, so that another word stands for the entity; and it repeats words where head and tail overlap.
    Here no marker is ever cut (stages.text.limits).
    """

    def __init__(self, config: ModelConfig, encoder: nn.Module) -> None:
        super().__init__(config, encoder)
        if config.task == "re":
            width = self.classifier.in_features
            with torch.random.fork_rng(devices=[]):  # the classifier and dropout draw as in other systems
                self.pair = nn.Linear(width, width)

    def states(self, batch: Batch) -> Tensor:
        return encode(self.encoder, batch.input_ids, batch.attention_mask, None)

    def pooled(self, states: Tensor, batch: Batch) -> Tensor:
        picked = super().pooled(states, batch)
        return self.pair(picked) if self.config.task == "re" else picked


class BertLabels(TextOnly):
    """BERT-CRF or MTB on texts that the labels of the image's objects follow (learning.extras.LabelText).

    Heads look at the text alone.
    """

    def states(self, batch: Batch) -> Tensor:
        types = getattr(self.encoder.config, "type_vocab_size", 1)
        segments = second_segments(batch.input_ids, batch.attention_mask) if types > 1 else None
        return encode(self.encoder, batch.input_ids, batch.attention_mask, None, segments=segments)


def second_segments(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return 1 for what follows the first closing token of each text, and 0 elsewhere: (B, n).

    The token that closes a text is its last, and occurs nowhere inside a segment.
    """
    last = attention_mask.long().sum(dim=1, keepdim=True) - 1
    closing = (input_ids == input_ids.gather(1, last)).long() * attention_mask
    return (closing.cumsum(dim=1) > closing).long()
