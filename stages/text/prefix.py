"""The visual prefix that a text encoder's layer may receive besides text."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LayerPrefix", "probabilities"]


@dataclass(frozen=True)
class LayerPrefix:
    """What a text layer attends to besides text.

    keys, values: (B, H, P, d/H) with P = V*p*p; mask: (B, P), false where absent.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor


def probabilities(scores: Tensor) -> Tensor:
    """Return the softmax over the last axis, in fp32 or better.

    Rounded to bf16, probabilities would sum to 1 only within a few thousandths.
    """
    return scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
