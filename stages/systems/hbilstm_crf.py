"""HBiLSTM-CRF: Lample et al., "Neural Architectures for Named Entity Recognition", NAACL 2016.

A word is its vector and the final states of a BiLSTM over its characters; a BiLSTM reads the words; a tanh
layer and a linear one make the emissions of a CRF. Sizes, dropout and initial values are those of the
authors' code (glample/tagger), but for the width of words, 200, and BIO tags. A word that the training split
holds once is unknown half of the time, as theirs (stages.text.encoders.words). Dropout scales in training
alone, where the authors' code scales in evaluation.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .batch import Batch, ModelConfig
from .recurrent import BiLSTM, CharBiLSTM, glorot_
from .system import System

__all__ = ["HBilstmCrf"]

_UNITS = 100  # in each direction
_DROPOUT = 0.5


class HBilstmCrf(System):
    """Words and their characters by a BiLSTM, read by another, with a tanh layer before the tags."""

    parts: ClassVar[Mapping[str, str]] = {
        "encoder": "words",
        "characters": "words",
        "recurrent": "words",
        "hidden": "words",
    }

    def __init__(self, config: ModelConfig, encoder: nn.Module) -> None:
        super().__init__(config, encoder, width=_UNITS, dropout=0.0)
        sizes: Any = encoder.config
        with torch.random.fork_rng(devices=[]):
            glorot_(self.classifier)
            self.characters = CharBiLSTM(sizes.characters, dim=25, units=25)
            self.word_dropout = nn.Dropout(_DROPOUT)
            self.recurrent = BiLSTM(sizes.word_dim + self.characters.width, _UNITS)
            self.hidden = glorot_(nn.Linear(2 * _UNITS, _UNITS))

    def states(self, batch: Batch) -> Tensor:
        assert batch.characters is not None
        mask = batch.attention_mask
        letters = self.characters(batch.characters, mask)
        words = torch.cat([self.encoder(batch.input_ids), letters], dim=-1)
        states: Tensor = self.hidden(self.recurrent(self.word_dropout(words), mask))
        return states.tanh()
