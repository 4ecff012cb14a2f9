"""VisualBERT: the views of an image stand behind the text, in one sequence (Li et al., 2019).

    s = [words of the text; W f_v + b + type 1 + position 0 for each view v]      f_v: the mean of the last
    states = the layers of BERT on LayerNorm(s), those of the text alone          level's cells

Words and views attend to each other in every layer. The whole image and its objects are views without an
order. The encoder is transformers' own VisualBertModel.

The authors' pretrained weights read the regions of a detector. From a BERT the system starts as
`visualbert[bert-init]`: with its text side, copies of its tables for the views, and a new projection W
(stages.text.encoders.visual_bert). It departs from published code in these points:
- Absent objects are masked. Where the mask is left out, transformers attends to their padding.
- The heads read the states of the text, and never those of the views.
- No code of the scores for entities or relations was released; the heads are those of all systems here.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...manifests.errors import InputError
from ..text.encoders.visual_bert import (
    encode_with_views,
    is_of_bert,
    load_visual_bert,
    visual_bert_from_config,
)
from .batch import Batch, ModelConfig
from .objects import view_vectors
from .system import Explanation, System

__all__ = ["VisualBERT"]


class VisualBERT(System):
    """VisualBERT with the heads of its task."""

    def __init__(self, config: ModelConfig, encoder: nn.Module) -> None:
        hf: Any = encoder.config
        if hf.visual_embedding_dim != config.levels[-1]:
            raise InputError(
                f"{config.system} reads views of {hf.visual_embedding_dim} numbers, and the features have "
                f"{config.levels[-1]}; train it again on these features, or extract those that it was "
                "trained on"
            )
        if is_of_bert(encoder):
            config = replace(config, options={**config.options, "qualifiers": ["bert-init"]})
        super().__init__(config, encoder)

    @staticmethod
    def pretrained(folder: Path, config: ModelConfig) -> nn.Module:
        return load_visual_bert(folder, config.levels[-1])

    @staticmethod
    def unfilled(config: ModelConfig) -> nn.Module:
        return visual_bert_from_config(config.encoder)

    def states(self, batch: Batch) -> Tensor:
        states: Tensor = self._encoded(batch).last_hidden_state
        return states[:, : batch.input_ids.shape[1]]

    def part_of(self, parameter: str) -> str:
        """Return a parameter's optimizer group: the projection of views is learned from nothing."""
        return "fusion" if ".visual_projection." in parameter else super().part_of(parameter)

    @torch.inference_mode()
    def explain(self, batch: Batch) -> Explanation:
        if batch.view_mask is None:
            return super().explain(batch)
        length = batch.input_ids.shape[1]
        layers = self._encoded(batch, output_attentions=True).attentions  # each (B, H, n + V, n + V)
        attention = torch.stack([layer[:, :, :length, length:].cpu() for layer in layers])
        return Explanation(None, attention, batch.view_mask.cpu())

    def _encoded(self, batch: Batch, **asked: Any) -> Any:
        vectors, mask = view_vectors(batch, self.config)
        vectors = vectors.to(self.classifier.weight.dtype)
        return encode_with_views(self.encoder, batch.input_ids, batch.attention_mask, vectors, mask, **asked)
