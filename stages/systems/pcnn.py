"""PCNN: Zeng et al., "Distant Supervision for Relation Extraction via Piecewise CNNs", EMNLP 2015.

A convolution reads words with their positions relative to head and tail; each filter's largest value is taken
before, between and after the two; a linear layer scores the relations. As in OpenNRE, whose PCNN the
published tables ran, the values pass ReLU (the paper: tanh). OpenNRE drops units twice in a row, which leaves
a quarter of them; here once, and twice with the option `double_dropout`.

Made impossible: a segment whose large values leak into another (OpenNRE masks by -100); values at padded
words (it convolves over 128 positions). Lengths follow `max_length`, and the width of words their vectors.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .batch import Batch, ModelConfig
from .objects import entering
from .recurrent import glorot_
from .system import System

__all__ = ["PCNN", "relative_positions", "segments"]

_FILTERS = 230
_POSITION = 5  # features of a relative position
_DROPOUT = 0.5


def relative_positions(mask: Tensor, start: Tensor, longest: int) -> Tensor:
    """Return the id of each word's distance from `start`: distance + longest, from 1 to 2 longest - 1.

    It is 0 at padded words. mask: (B, W). start: (B,), the first word of an argument.
    """
    distance = torch.arange(mask.shape[1], device=mask.device) - start[:, None]
    return (distance + longest).clamp(1, 2 * longest - 1).masked_fill(~mask, 0)


def segments(mask: Tensor, starts: Tensor) -> Tensor:
    """Return which words are up to the first argument's start, up to the second's, and after: (B, 3, W) bool.

    mask: (B, W). starts: (B, 2), the first words of head and tail, in any order.
    """
    place = torch.arange(mask.shape[1], device=mask.device)
    first, second = starts.amin(dim=1)[:, None], starts.amax(dim=1)[:, None]
    parts = (place <= first, (place > first) & (place <= second), place > second)
    return torch.stack(parts, dim=1) & mask[:, None]


class PCNN(System):
    """Words and relative positions, by one convolution and the largest values of its three segments."""

    parts: ClassVar[Mapping[str, str]] = {
        "encoder": "words",
        "head_positions": "words",
        "tail_positions": "words",
        "convolution": "words",
    }

    def __init__(self, config: ModelConfig, encoder: nn.Module) -> None:
        super().__init__(config, encoder, pair_width=3 * _FILTERS, dropout=_DROPOUT)
        sizes: Any = encoder.config
        with torch.random.fork_rng(devices=[]):
            self.head_positions, self.tail_positions = (
                nn.Embedding(2 * config.max_length, _POSITION, padding_idx=0) for _ in range(2)
            )
            self.convolution = glorot_(
                nn.Conv1d(sizes.word_dim + 2 * _POSITION, _FILTERS, kernel_size=3, padding=1)
            )
            self.inner_dropout = nn.Dropout(_DROPOUT if config.options.get("double_dropout") else 0.0)

    def states(self, batch: Batch) -> Tensor:
        assert batch.spans is not None
        mask, longest = batch.attention_mask, self.config.max_length
        head, tail = batch.spans[:, 0, 0], batch.spans[:, 1, 0]
        words = torch.cat(
            [
                entering(self.encoder(batch.input_ids), mask),  # the convolution looks beyond the last word
                self.head_positions(relative_positions(mask, head, longest)),
                self.tail_positions(relative_positions(mask, tail, longest)),
            ],
            dim=-1,
        )
        states: Tensor = self.convolution(words.transpose(1, 2)).transpose(1, 2)  # shape: (B, W, filters)
        return states

    def pooled(self, states: Tensor, batch: Batch) -> Tensor:
        """Return each filter's largest value in each segment, (B, 3 filters), at least 0.

        A segment without a word gives zeros.
        """
        assert batch.spans is not None
        inside = segments(batch.attention_mask, batch.spans[:, :, 0])[..., None]  # shape: (B, 3, W, 1)
        largest = states[:, None].masked_fill(~inside, float("-inf")).amax(dim=2)
        found: Tensor = self.inner_dropout(largest.relu())  # relu makes 0 of an empty segment's -inf
        return found.flatten(1)
