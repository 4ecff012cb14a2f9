"""Adaptive co-attention over BERT: words choose cells, cells choose words, and a filter admits what they mix.

The network of Zhang et al., AAAI 2018, with BERT in place of its sentence encoder, as in Yu et al., ACL 2020.
Of the words h_t and the cells v_i of the image, projected through tanh:

    s_ti = w_a . tanh(W_v v_i + W_h h_t + b_a);      vh_t = sum_i softmax(s_t)_i v_i        word-guided
    r_tj = w_c . tanh(W_x h_j + W_u vh_t + b_c);     hh_t = sum_j softmax(r_t)_j h_j        image-guided
    p_t = tanh(W_1 vh_t + b_1);  q_t = tanh(W_2 hh_t + b_2)
    g_t = sigmoid(w_g . [p_t; q_t] + b_g);           m_t = g_t p_t + (1 - g_t) q_t
    f_t = sigmoid(w_f . [W_s h_t; U_s m_t] + b_f);   u_t = f_t tanh(W_m m_t + b_m)
    emissions of word t: a linear map of [h_t; u_t]

It departs from the paper, or from the code at github.com/jinlanfu/NERmultimodal, in these points:
- Paper and code concatenate W_v v_i and W_h h_t before tanh. The score is then a sum of one of the cell and
  one of the word, and the softmax over cells cancels the latter: every word attends to the same cells. Here
  they are added, so that words guide attention. `adapcoatt-bert-crf-concat` does what is printed.
- The code masks no word: padding is attended to, and is in the loss of the CRF.
- An image that is absent or cannot be read gives f_t = 0: the emissions are those of the text.
- The cells are those of the cached backbone's last level, in place of VGG-16's. The code with BERT was not
  released, so that the sizes are ours: the cells are as wide as BERT's states.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ...cache.spec import IMAGE
from ..text.encoders.bert import encode
from ..text.encoders.families import value_of
from .attention import AdditiveAttention
from .batch import Batch, ModelConfig
from .objects import cells, check_regions, of_image
from .system import Explanation, System

__all__ = ["AdapCoAtt"]

_ATTENTION_WIDTH = 200  # the paper's


class AdapCoAtt(System):
    """Adaptive co-attention for entities.

    options: "score", "sum" or "concat": how the scores of attention join their two parts.
    """

    parts: ClassVar[Mapping[str, str]] = {**System.parts, "fusion": "fusion"}

    def __init__(self, config: ModelConfig, encoder: nn.Module) -> None:
        check_regions(config, IMAGE)
        hf: Any = encoder.config
        super().__init__(config, encoder, width=2 * hf.hidden_size, dropout=0.0)
        with torch.random.fork_rng(devices=[]):
            self.fusion = CoAttention(
                config.levels[-1],
                hf.hidden_size,
                value_of(hf, "hidden_dropout_prob"),
                concatenated=config.options.get("score") == "concat",
            )

    def states(self, batch: Batch) -> Tensor:
        return encode(self.encoder, batch.input_ids, batch.attention_mask, None)

    def pooled(self, states: Tensor, batch: Batch) -> Tensor:
        """Return [h_t; u_t] of each word, (B, T, 2d): the fusion is one of words, not of sub-words."""
        return self.fused(states, batch).states

    def fused(self, states: Tensor, batch: Batch) -> "Fused":
        """Return [h_t; u_t], and how it came about, from the encoder's states (B, n, d)."""
        words = super().pooled(states, batch)
        fused: Fused = self.fusion(words, batch.position_mask, *cells(batch, self.config))
        return fused

    def looks_at(self, view_mask: Tensor) -> Tensor:
        return of_image(view_mask)

    @torch.inference_mode()
    def explain(self, batch: Batch) -> Explanation:
        """Return the word-guided attention to the cells, g_t and f_t, at the first sub-word of each word."""
        fused = self.fused(self.states(batch), batch)

        def at_subwords(of_words: Tensor) -> Tensor:
            """Return values (B, T, ...) of words as (B, n, ...), zero at all other sub-words."""
            result = of_words.new_zeros(*batch.input_ids.shape, *of_words.shape[2:])
            row, word = batch.position_mask.nonzero(as_tuple=True)
            result[row, batch.positions[row, word]] = of_words[row, word]
            return result.cpu()

        return Explanation(
            gates=None,
            attention=at_subwords(fused.to_cells)[None, :, None],
            present=fused.present.cpu(),
            over="cells",
            word_gates={
                "visual": at_subwords(fused.gate.squeeze(-1)),
                "filtration": at_subwords(fused.filtration.squeeze(-1)),
            },
        )


class Fused(NamedTuple):
    """What the fusion returns.

    states: [h_t; u_t], (B, T, 2d). to_cells, to_words: the weights of both attentions, (B, T, cells) and
    (B, T, T). gate, filtration: g_t and f_t, (B, T, 1). present: the mask of the cells, (B, cells).
    """

    states: Tensor
    to_cells: Tensor
    to_words: Tensor
    gate: Tensor
    filtration: Tensor
    present: Tensor


class CoAttention(nn.Module):
    """Co-attention, gate and filter."""

    def __init__(self, channels: int, width: int, dropout: float, *, concatenated: bool) -> None:
        super().__init__()
        self.cells = nn.Linear(channels, width)
        self.to_cells, self.to_words = (
            AdditiveAttention(width, width, _ATTENTION_WIDTH, concatenated=concatenated) for _ in range(2)
        )
        self.visual, self.textual = nn.Linear(width, width), nn.Linear(width, width)  # W_1 and W_2
        self.gate = nn.Linear(2 * width, 1)  # w_g
        self.word_filter = nn.Linear(width, width, bias=False)  # W_s
        self.mixed_filter = nn.Linear(width, width, bias=False)  # U_s
        self.filtration = nn.Linear(2 * width, 1)  # w_f
        self.mixed = nn.Linear(width, width)  # W_m
        self.dropout = nn.Dropout(dropout)

    def forward(self, words: Tensor, word_mask: Tensor, cells: Tensor, present: Tensor) -> Fused:
        """Return [h_t; u_t].

        words: (B, T, d). word_mask: (B, T). cells: (B, cells, C). present: (B, cells).
        """
        words = self.dropout(words)
        cells = self.dropout(torch.tanh(self.cells(cells.to(self.cells.weight.dtype))))
        seen, to_cells = self.to_cells(words, cells, present)  # vh_t
        read, to_words = self.to_words(seen, words, word_mask)  # hh_t
        visual, textual = torch.tanh(self.visual(seen)), torch.tanh(self.textual(read))
        gate = torch.sigmoid(self.gate(torch.cat([visual, textual], dim=-1)))
        mixed = gate * visual + (1 - gate) * textual
        both = torch.cat([self.word_filter(words), self.mixed_filter(mixed)], dim=-1)
        image = present.any(dim=-1)[:, None, None]
        filtration = torch.sigmoid(self.filtration(both)).masked_fill(~image, 0.0)
        states = torch.cat([words, filtration * torch.tanh(self.mixed(mixed))], dim=-1)
        return Fused(states, to_cells, to_words, gate, filtration, present)
