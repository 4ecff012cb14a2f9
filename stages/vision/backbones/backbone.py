"""What every backbone is: a network from pixels to maps, always in evaluation mode."""

from abc import abstractmethod
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import BackboneInfo

__all__ = ["Backbone"]


class Backbone(nn.Module):
    """A network from pixels to one map a level. It does not pool: stages.vision.pooling does.

    Always in evaluation mode: BatchNorm uses and keeps the statistics that it was trained with, whatever
    `train()` is called on.
    """

    def __init__(self, info: BackboneInfo) -> None:
        super().__init__()
        self.info = info

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """Return the network as its publisher has it, whose state dict a weights file holds."""

    @property
    @abstractmethod
    def parts(self) -> list[list[nn.Module]]:
        """Return the modules of the stem and of each stage, from the pixels on, as --unfreeze counts them."""

    @abstractmethod
    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return each level's map (N, C_i, h_i, w_i), fine to coarse. pixels: (N, 3, S, S), normalised."""

    @property
    def fuses(self) -> bool:
        """Return whether stages.vision.fused may change its blocks, and maps are best with channels last."""
        return self.info.fused

    def computed(self, module: nn.Module, current: Tensor, *, recompute: bool) -> Tensor:
        """Return what a module makes of its input.

        recompute: a module that learns keeps no activations for the backward pass and computes them again
        there: less memory, more time.
        """
        learns = recompute and any(parameter.requires_grad for parameter in module.parameters())
        if learns and torch.is_grad_enabled():
            again: Tensor = checkpoint(module, current, use_reentrant=False)
            return again
        made: Tensor = module(current)
        return made

    def train(self, mode: bool = True) -> Self:
        return super().train(False)
