"""Attention to a visual prefix beside the text in DeBERTa, which scores contents and distances.

The scores of text are those of transformers' modules. A cell of an image has no distance from a word, so that
its score is the content's alone, divided as that of text is: sqrt(d/H * the number of terms).
"""

from math import sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.deberta import modeling_deberta as first
from transformers.models.deberta_v2 import modeling_deberta_v2 as second

from .attention import current_pass

__all__ = ["see_prefixes"]


class _Parts(NamedTuple):
    """What a layer makes of its text.

    query, key, value: (B, H, n, d/H). distances: what is added to the scores of contents, (B, H, n, n).
    """

    query: Tensor
    key: Tensor
    value: Tensor
    distances: Tensor | float
    scaling: float


class _First(first.DisentangledSelfAttention):  # type: ignore[misc]
    """The attention of DeBERTa."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor, *args: Any, **kwargs: Any) -> Any:
        return _seen(self, hidden_states, attention_mask, *args, **kwargs)

    def parts(self, states: Tensor, relative_pos: Any, rel_embeddings: Any) -> _Parts:
        query, key, value = self.transpose_for_scores(self.in_proj(states)).chunk(3, dim=-1)
        terms = 1 + len(self.pos_att_type)
        query = query + self.transpose_for_scores(self.q_bias[None, None, :])
        query = query / sqrt(query.shape[-1] * terms)
        value = value + self.transpose_for_scores(self.v_bias[None, None, :])
        distances: Tensor | float = 0.0
        if self.relative_attention:
            distances = self.disentangled_att_bias(
                query, key, relative_pos, self.pos_dropout(rel_embeddings), terms
            )
        return _Parts(query, key, value, distances, 1.0)


class _Second(second.DisentangledSelfAttention):  # type: ignore[misc]
    """The attention of DeBERTa v2 and v3."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor, *args: Any, **kwargs: Any) -> Any:
        return _seen(self, hidden_states, attention_mask, *args, **kwargs)

    def parts(self, states: Tensor, relative_pos: Any, rel_embeddings: Any) -> _Parts:
        heads = self.num_attention_heads
        query, key, value = (
            self.transpose_for_scores(projection(states), heads)  # shape: (B * H, n, d/H)
            for projection in (self.query_proj, self.key_proj, self.value_proj)
        )
        terms = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        distances: Tensor | float = 0.0
        if self.relative_attention:
            distances = self.disentangled_attention_bias(
                query, key, relative_pos, self.pos_dropout(rel_embeddings), terms
            )
        if isinstance(distances, Tensor):
            distances = distances.unflatten(0, (-1, heads))
        query, key, value = (part.unflatten(0, (-1, heads)) for part in (query, key, value))
        return _Parts(query, key, value, distances, 1 / sqrt(query.shape[-1] * terms))


def see_prefixes(encoder: nn.Module) -> None:
    """Let the layers of a DeBERTa take prefixes; those of other encoders are left as they are."""
    for module in encoder.modules():
        for own, seeing in ((first, _First), (second, _Second)):
            if type(module) is own.DisentangledSelfAttention:
                module.__class__ = seeing  # the same weights under the same names


def _seen(
    module: Any,
    states: Tensor,
    attention_mask: Tensor,
    output_attentions: bool = False,
    query_states: None = None,
    relative_pos: Any = None,
    rel_embeddings: Any = None,
) -> tuple[Tensor, None]:
    """Return what the module's own forward returns, with the prefix of the pass in view, if there is one.

    Its own forward is not called for plain text either: DeBERTa's cannot be computed under autocast.
    """
    running = current_pass()
    prefix = None if running is None else running.take()
    query, key, value, distances, scaling = module.parts(states, relative_pos, rel_embeddings)
    batch, heads, length, _ = query.shape
    mask = attention_mask[:, :, :1].bool()  # the row of [CLS], which knows what is padding
    added = torch.as_tensor(distances, dtype=query.dtype, device=query.device)
    added = added.expand(batch, heads, length, length)
    if prefix is not None:
        added = torch.cat([added.new_zeros(batch, heads, length, prefix.mask.shape[1]), added], dim=-1)
        mask = torch.cat([prefix.mask[:, None, None, :], mask], dim=-1)
        key = torch.cat([prefix.keys.to(key.dtype), key], dim=2)
        value = torch.cat([prefix.values.to(value.dtype), value], dim=2)
    added = added.masked_fill(~mask, float("-inf"))  # shape: (B, H, n, P + n)
    if running is not None and prefix is not None and running.attention is not None:
        running.note(query @ key.transpose(-1, -2).to(query.dtype) * scaling + added, prefix)
    context = scaled_dot_product_attention(
        query,
        key.to(query.dtype),
        value.to(query.dtype),
        attn_mask=added,
        dropout_p=module.dropout.p if module.training else 0.0,
        scale=scaling,
    )
    return context.transpose(1, 2).flatten(2), None
