"""A table of word vectors: the text encoder of systems without a pretrained one."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ..vectors import Vectors
from ..vocabulary import PAD, UNKNOWN, Vocabulary

__all__ = ["WORD_TABLE", "WordTable"]

WORD_TABLE = "words"
"""The `model_type` of a table's configuration, beside those of transformers."""

# How often a word that the training split holds once is read as an unknown one: Lample et al. (2016), section
# 4.1. Nothing else would teach the unknown word's vector.
_FORGOTTEN = 0.5


class WordTable(nn.Module):
    """From ids of words to vectors that are learned, the padding's zero and frozen.

    Without vectors of a file each is drawn from U(-sqrt(3/d), sqrt(3/d)). In training, a word that the
    training split holds once is unknown half of the time.

    config: `words` and `characters` (how many ids of each the model reads), `word_dim`, and the digest of the
    vocabulary. It has the fields that systems ask of every encoder's configuration.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.sizes = dict(config)
        self.config = SimpleNamespace(**config, hidden_size=config["word_dim"], hidden_dropout_prob=0.0)
        self.vectors = nn.Embedding(config["words"], config["word_dim"], padding_idx=PAD)
        bound = (3 / config["word_dim"]) ** 0.5
        with torch.no_grad():
            self.vectors.weight.uniform_(-bound, bound)[PAD] = 0
        self.register_buffer("seen_once", torch.zeros(config["words"], dtype=torch.bool))
        self.seen_once: Tensor

    @classmethod
    def new(cls, vocabulary: Vocabulary, word_dim: int, vectors: Vectors | None = None) -> "WordTable":
        """Return the table of a new model, with the vectors of a file for the words that have one there."""
        sizes = {"words": vocabulary.word_ids, "characters": vocabulary.character_ids, "word_dim": word_dim}
        table = cls({"model_type": WORD_TABLE, **sizes, "vocabulary": vocabulary.digest})
        known = list(enumerate(vocabulary.words, UNKNOWN + 1))
        found = [(number, row) for number, word in known if vectors and (row := vectors.of(word)) is not None]
        with torch.no_grad():
            table.seen_once[UNKNOWN + 1 :] = torch.tensor(list(vocabulary.words.values())) == 1
            for number, row in found:
                table.vectors.weight[number] = torch.from_numpy(row)
        return table

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors of words: ids (B, W) to (B, W, d)."""
        if self.training:
            forgotten = self.seen_once[ids] & (torch.rand(ids.shape, device=ids.device) < _FORGOTTEN)
            ids = ids.masked_fill(forgotten, UNKNOWN)
        vectors: Tensor = self.vectors(ids)
        return vectors
