"""A backbone's maps, pooled and joined: the pyramid of equations 1 and 2.

Equation 2 pools before its 1x1 convolution, so what is cached here is everything that the pixels contribute:
the convolution, which is trained, starts from the pooled maps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

__all__ = ["pooled_and_joined"]


def pooled_and_joined(maps: Sequence[Tensor], side: int) -> Tensor:
    """Return the maps (N, C_i, h_i, w_i), average-pooled and joined: (N, sum of C_i, side, side)."""
    # Adaptive pooling: 7x7 to 2x2 uses overlapping bins, so that no row or column is dropped.
    return torch.cat([adaptive_avg_pool2d(level, side) for level in maps], dim=1)
