"""What a text encoder's layer may be given besides text."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LayerPrefix", "probabilities"]


@dataclass(frozen=True)
class LayerPrefix:
    """What one text layer attends besides text.

    keys, values: (B, H, P, d/H) with P = V*p*p; mask: (B, P), false where absent.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor


def probabilities(scores: Tensor) -> Tensor:
    """Return the softmax over the last axis, in fp32 at least: rounded to bf16, probabilities sum to 1 within
    a few thousandths only.
    """
    return scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
