"""Attention to a visual prefix beside the text (equation 9), for encoders that call transformers' interface.

    with seeing(prefix):
        states = encoder(input_ids=..., attention_mask=...).last_hidden_state

Layers take their prefixes in the order in which they run, so that layers that share their weights have one
each. Without a prefix the attention is transformers' own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..prefix import LayerPrefix, probabilities

__all__ = ["ATTENTION", "Pass", "current_pass", "seeing"]

ATTENTION = "hmnet_prefix"
"""The name of this attention among transformers' implementations."""


class Pass:
    """The prefixes of one pass of an encoder, one for each layer.

    attention: receives the attention to the prefix, (B, H, n, P), of every layer that has one; None: it is
    not computed.
    """

    def __init__(
        self, prefixes: Sequence[LayerPrefix | None], attention: dict[int, Tensor] | None = None
    ) -> None:
        self.prefixes, self.attention, self.taken = prefixes, attention, 0

    def take(self) -> LayerPrefix | None:
        """Return the prefix of the layer that runs now."""
        assert self.taken < len(self.prefixes), "the encoder has more attentions than layers"
        self.taken += 1
        return self.prefixes[self.taken - 1]

    def note(self, scores: Tensor, prefix: LayerPrefix) -> None:
        """Keep what the layer that took its prefix last gives of its attention to it.

        scores: (B, H, n, P + n), -inf where nothing is attended.
        """
        if self.attention is not None:
            self.attention[self.taken - 1] = probabilities(scores)[..., : prefix.mask.shape[1]]


# Of the thread: two predictors may run side by side.
_PASS: ContextVar[Pass | None] = ContextVar("pass", default=None)


def current_pass() -> Pass | None:
    """Return the pass in which an attention is called; None: the encoder reads plain text."""
    return _PASS.get()


@contextmanager
def seeing(
    prefixes: Sequence[LayerPrefix | None] | None, attention: dict[int, Tensor] | None = None
) -> Iterator[None]:
    """Let the layers of the encoder that runs in this context see these prefixes, each its own.

    prefixes: one entry for each layer; None: plain text.
    """
    running = None if prefixes is None else Pass(prefixes, attention)
    token = _PASS.set(running)
    try:
        yield
    finally:
        _PASS.reset(token)
    if running is not None:
        assert running.taken == len(running.prefixes), "a layer of the encoder has not taken its prefix"


def _prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return the attention of equation 9: softmax(Q [phi_k; K]^T / sqrt(d/H) + mask) [phi_v; V].

    Queries are text only. query: (B, H, n, d/H). key, value: the same, or of fewer heads, each shared by as
    many queries. attention_mask: (B, 1, n, n) bool, true where attended, or None where nothing is hidden.
    sliding_window: how far a query sees in the text; None: all of it. It is in the mask already.
    """
    running = current_pass()
    prefix = None if running is None else running.take()
    if running is not None and prefix is not None:
        batch, heads, length, _ = query.shape
        shared = heads // key.shape[1]
        if shared > 1:  # every head has a prefix of its own
            key, value, module = repeat_kv(key, shared), repeat_kv(value, shared), nn.Identity()
        mask = prefix.mask[:, None, None, :]
        if attention_mask is None:
            text = mask.new_ones(batch, 1, 1, length)
        elif sliding_window is None:  # padding is the same for every query, so one row of the mask is enough
            text = attention_mask[:, :, :1]
        else:
            text, mask = attention_mask, mask.expand(-1, -1, length, -1)
        attention_mask = torch.cat([mask, text], dim=-1)  # shape: (B, 1, 1 or n, P + n)
        key = torch.cat([prefix.keys.to(key.dtype), key], dim=2)
        value = torch.cat([prefix.values.to(value.dtype), value], dim=2)
        if running.attention is not None:
            scores = query @ key.transpose(-1, -2) * kwargs["scaling"]
            running.note(scores.masked_fill(~attention_mask, float("-inf")), prefix)
    result: tuple[Tensor, Tensor | None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, **kwargs
    )
    return result


def _mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """Return transformers' mask of a text (B, n) as the attention takes it, (B, 1, n, n).

    A processor looks whether anything is padding; a GPU would have to be waited for.
    """
    if attention_mask is not None and attention_mask.device.type != "cpu":
        kwargs["allow_is_bidirectional_skip"] = False
    mask: Tensor | None = sdpa_mask(*args, attention_mask=attention_mask, **kwargs)
    return mask


AttentionInterface.register(ATTENTION, _prefix_attention)
AttentionMaskInterface.register(ATTENTION, _mask)
