"""CNN-BiLSTM-CRF: Ma and Hovy, "End-to-end Sequence Labeling via Bi-directional LSTM-CNNs-CRF", ACL 2016.

A word is its vector and that of its characters by a CNN; a BiLSTM reads the words; a CRF tags them. Sizes,
dropout and initial values are the paper's (sections 2 and 3), but for the width of words, 200, and BIO tags.
It departs from the authors' code (NeuroNLP2) where that departs from the paper, and in two more points: their
maximum over characters includes padding, here it is over the real ones; and a word that the training split
holds once is unknown half of the time (stages.text.encoders.words), as nothing else would teach what an
unknown word is.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .batch import Batch, ModelConfig
from .recurrent import BiLSTM, CharCNN, glorot_
from .system import System

__all__ = ["CnnBilstmCrf"]

_UNITS = 200  # in each direction
_DROPOUT = 0.5


class CnnBilstmCrf(System):
    """Words and their characters by a CNN, read by a BiLSTM."""

    parts: ClassVar[Mapping[str, str]] = {"encoder": "words", "characters": "words", "recurrent": "words"}

    def __init__(self, config: ModelConfig, encoder: nn.Module) -> None:
        super().__init__(config, encoder, width=2 * _UNITS, dropout=_DROPOUT)
        sizes: Any = encoder.config
        with torch.random.fork_rng(devices=[]):
            glorot_(self.classifier)
            self.characters = CharCNN(sizes.characters, dim=30, filters=30, dropout=_DROPOUT)
            self.word_dropout = nn.Dropout(_DROPOUT)
            self.recurrent = BiLSTM(sizes.word_dim + self.characters.width, _UNITS)

    def states(self, batch: Batch) -> Tensor:
        assert batch.characters is not None
        mask = batch.attention_mask
        letters = self.characters(batch.characters, mask)
        words = torch.cat([self.encoder(batch.input_ids), letters], dim=-1)
        states: Tensor = self.recurrent(self.word_dropout(words), mask)
        return states
