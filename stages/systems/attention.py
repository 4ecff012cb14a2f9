"""The attention that multimodal systems share: masked softmax, additive, multi-head, and transformer block.

Symbols: B batch, n queries, K keys, d width, H heads. A key mask is true where a key is present. An absent
key gets the weight 0, and a query that has no key at all gets nothing: zeros, not the mean of padding. What
an absent key holds must be finite, since 0 times NaN is NaN; systems make it 0 where it enters.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = [
    "AdditiveAttention",
    "Attended",
    "FeedForward",
    "MultiHeadAttention",
    "TransformerBlock",
    "masked_softmax",
]


class Attended(NamedTuple):
    """What attention returns: its output (B, n, d), and its weights before dropout.

    weights: (B, n, K) from additive and (B, H, n, K) from multi-head attention.
    """

    output: Tensor
    weights: Tensor


def masked_softmax(scores: Tensor, key_mask: Tensor) -> Tensor:
    """Return the softmax of `scores` over the present keys, the last axis, in fp32 or better.

    Absent keys get exactly 0, and so does a whole row without any present key. scores: (..., K). key_mask:
    bool, broadcast to the shape of `scores`.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    # The lowest finite number, not minus infinity, which would make a row without a key NaN.
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~key_mask, lowest).softmax(dim=-1).masked_fill(~key_mask, 0.0)


class AdditiveAttention(nn.Module):
    """Additive attention (Bahdanau et al. 2015): score w . tanh(A q + C k + b) of query q and key k.

    concatenated: w . tanh([A q + b; C k]) in place of the sum, as some papers print it. That score is f(q) +
    g(k), and the softmax over keys cancels f(q): every query gets the same weights.
    """

    def __init__(self, queries: int, keys: int, width: int, *, concatenated: bool = False) -> None:
        super().__init__()
        self.concatenated = concatenated
        self.query = nn.Linear(queries, width)
        self.key = nn.Linear(keys, width, bias=False)
        self.score = nn.Linear(2 * width if concatenated else width, 1, bias=False)

    def forward(self, queries: Tensor, keys: Tensor, key_mask: Tensor) -> Attended:
        """Return the mean of the keys by their weights for each query.

        queries: (B, n, d_q). keys: (B, K, d_k), which are the values too. key_mask: (B, K).
        """
        asked, offered = (
            self.query(queries)[:, :, None],
            self.key(keys)[:, None],
        )  # (B, n, 1, w), (B, 1, K, w)
        if self.concatenated:
            of_query, of_key = self.score.weight.squeeze(0).chunk(2)
            scores = asked.tanh() @ of_query + offered.tanh() @ of_key
        else:
            scores = self.score((asked + offered).tanh()).squeeze(-1)
        weights = masked_softmax(scores, key_mask[:, None])  # shape: (B, n, K)
        return Attended(weights.to(keys.dtype) @ keys, weights)


class MultiHeadAttention(nn.Module):
    """Multi-head scaled dot-product attention with a key mask.

    value, output: whether values and the heads' joined output are projected. Without a value projection the
    values are the keys' states, split into heads. dropout: of the weights.
    """

    def __init__(
        self, width: int, heads: int, *, dropout: float = 0.0, value: bool = True, output: bool = True
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} features cannot be split into {heads} heads of equal width")
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value: nn.Module = nn.Linear(width, width) if value else nn.Identity()
        self.output: nn.Module = nn.Linear(width, width) if output else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, keys: Tensor, key_mask: Tensor) -> Attended:
        """Return what each query gets of the keys. queries: (B, n, d). keys: (B, K, d). key_mask: (B, K)."""
        q, k, v = (
            split_heads(part, self.heads) for part in (self.query(queries), self.key(keys), self.value(keys))
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # shape: (B, H, n, K)
        weights = masked_softmax(scores, key_mask[:, None, None])
        mixed = (self.dropout(weights).to(v.dtype) @ v).transpose(1, 2).flatten(2)  # shape: (B, n, d)
        # The output projection's bias would tell the query of keys that are not there.
        any_key = key_mask.any(dim=-1)[:, None, None]
        return Attended(self.output(mixed).masked_fill(~any_key, 0.0), weights)


class FeedForward(nn.Module):
    """Two linear maps with an activation between them, and dropout after it."""

    def __init__(
        self, width: int, inner: int, activation: Callable[[Tensor], Tensor], *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, inner), nn.Linear(inner, width)
        self.activation, self.dropout = activation, nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        result: Tensor = self.outer(self.dropout(self.activation(self.inner(states))))
        return result


class TransformerBlock(nn.Module):
    """A transformer block with LayerNorm after each sum; self-attention where queries and keys are one.

    U = LN(X + drop(MHA(X, Y, Y))); Z = LN(U + drop(ffn(U))), with queries X and keys Y. dropout: of the
    attention's weights and of what is added to X and U.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        activation: Callable[[Tensor], Tensor],
        *,
        eps: float,
        dropout: float,
        value: bool = True,
        output: bool = True,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(width, heads, dropout=dropout, value=value, output=output)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.feed_forward = FeedForward(width, inner, activation)
        self.feed_forward_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, keys: Tensor, key_mask: Tensor) -> Attended:
        """Return Z, (B, n, d), and the weights. queries: (B, n, d). keys: (B, K, d). key_mask: (B, K).

        For a query without a present key nothing comes from the keys.
        """
        attended, weights = self.attention(queries, keys, key_mask)
        states = self.attention_norm(queries + self.dropout(attended))
        return Attended(self.feed_forward_norm(states + self.dropout(self.feed_forward(states))), weights)


def split_heads(states: Tensor, heads: int) -> Tensor:
    """Return (B, n, d) as (B, H, n, d/H), in which head h has the h-th run of d/H features."""
    parts: Tensor = states.unflatten(-1, (heads, -1))
    return parts.transpose(1, 2)
