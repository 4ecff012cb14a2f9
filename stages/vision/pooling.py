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
    return torch.cat([_pooled(level, side) for level in maps], dim=1)


def _pooled(maps: Tensor, side: int) -> Tensor:
    # Adaptive pooling: 7x7 to 2x2 uses overlapping bins, so that no row or column is dropped.
    if maps.device.type == "cpu" or not (torch.is_grad_enabled() and maps.requires_grad):
        return adaptive_avg_pool2d(maps, side)
    # Its gradient on a GPU adds up in any order; that of the bins one by one does not.
    rows = torch.stack([maps[:, :, bin_].float().mean(dim=2) for bin_ in _bins(maps.shape[2], side)], dim=2)
    return torch.stack([rows[..., bin_].mean(dim=3) for bin_ in _bins(maps.shape[3], side)], dim=3)


def _bins(length: int, count: int) -> list[slice]:
    """Return the bins of adaptive pooling along one side of a map."""
    return [slice(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
