"""Convolutions as oneDNN runs them best on a processor.

Normalisation is folded into the weights, ReLU and the residual sum are inside the kernel, weights are packed
once, and channels are last.

This is what torch.compile makes of a frozen torchvision network, called directly: no compiler on the user's
machine, no half minute of compiling, any size of image, and one way of computing for short runs and long
ones, so that the numbers depend on no estimate of length.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d

from ..base import onednn
from ..base.arithmetic import Arithmetic

__all__ = ["FusedConv", "for_inference", "fuse", "plain"]

N = TypeVar("N", bound=nn.Module)

_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


class FusedConv(nn.Module):
    """relu(norm(conv(maps)) + added), with norm, added and relu each optional, by one kernel in `dtype`.

    For inference only.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        norm: nn.Module | None = None,
        *,
        relu: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
        if norm is not None:
            parts: list[Any] = [norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias]
            weight, bias = (part.detach() for part in fuse_conv_bn_weights(weight, bias, *parts))
        self._shape: list[Any] = [conv.padding, conv.stride, conv.dilation, conv.groups]
        # No buffers: a packed weight is an opaque tensor that can be neither moved nor saved.
        self._weight = weight.to(dtype).to_mkldnn()
        self._packed = False
        self._bias = None if bias is None else bias.to(dtype)
        self._relu, self._dtype = relu, dtype

    def forward(self, maps: Tensor, added: Tensor | None = None) -> Tensor:
        """Return the maps of this layer. maps: (N, C, H, W).

        added: of the output's shape and dtype; the result overwrites it.
        """
        maps = maps.to(self._dtype).contiguous(memory_format=torch.channels_last)
        if not self._packed:
            # The kernel's layout of the weights depends on the size of the maps; at a size that wants another
            # it reorders them in every call, to the same numbers. For 4 views of 224 x 224 that took half the
            # time.
            self._weight = onednn.packed(self._weight, self._shape, maps.shape)
            self._packed = True
        if added is None:
            return onednn.convolve(maps, self._weight, self._bias, self._shape, relu=self._relu)
        return onednn.convolve_into(added, maps, self._weight, self._bias, self._shape, relu=self._relu)


class _FusedBlock(nn.Module):
    """A residual block of torchvision's ResNets."""

    def __init__(self, block: BasicBlock | Bottleneck, dtype: torch.dtype) -> None:
        super().__init__()
        numbers = (1, 2, 3) if isinstance(block, Bottleneck) else (1, 2)
        convs = [
            FusedConv(getattr(block, f"conv{i}"), getattr(block, f"bn{i}"), relu=True, dtype=dtype)
            for i in numbers
        ]
        self.convs = nn.ModuleList(convs)
        self.downsample = None if block.downsample is None else fuse(block.downsample, dtype)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the block's maps. maps: (N, C, H, W)."""
        *first, last = self.convs
        branch = maps
        for conv in first:
            branch = conv(branch)
        # The result overwrites the block's input where nothing else needs it: a stage whose output is used
        # elsewhere too is followed by a block with a downsample path.
        result: Tensor = last(branch, maps if self.downsample is None else self.downsample(maps))
        return result


def fuse(network: N, dtype: torch.dtype) -> N:
    """Replace, in place, every convolution below `network` by a FusedConv in `dtype`.

    It also does the work of the normalisation and the ReLU after it. Linear layers are converted to `dtype`.

    network: of torchvision's ResNets, MobileNets and Faster R-CNNs, in evaluation mode.
    """
    for name, child in list(network.named_children()):
        if isinstance(child, (BasicBlock, Bottleneck)):
            setattr(network, name, _FusedBlock(child, dtype))
        elif isinstance(child, nn.Linear):
            child.to(dtype)
        elif isinstance(child, nn.Conv2d):
            _fuse_here(network, name, child, dtype)
        else:
            fuse(child, dtype)
    return network


def _fuse_here(network: nn.Module, name: str, conv: nn.Conv2d, dtype: torch.dtype) -> None:
    """Fuse `conv`, the child `name` of `network`, with what `network` runs directly behind it."""
    names = [each for each, _ in network.named_children()]
    # A plain sequence and the stem of a ResNet run their children in this order; other modules may not.
    ordered = isinstance(network, nn.Sequential) or name == "conv1"
    behind = names[names.index(name) + 1 :] if ordered else []
    used: list[str] = []
    norm = relu = None
    if behind and isinstance(network.get_submodule(behind[0]), _NORMS):
        norm = network.get_submodule(behind[0])
        used.append(behind.pop(0))
    if behind and isinstance(network.get_submodule(behind[0]), nn.ReLU):
        relu = behind.pop(0)
        used.append(relu)
    setattr(network, name, FusedConv(conv, norm, relu=relu is not None, dtype=dtype))
    for each in used:
        setattr(network, each, nn.Identity())


def for_inference(network: N, arithmetic: Arithmetic) -> N:
    """Return `network` itself, changed so that it computes as `arithmetic` says.

    With "bf16", call it within stages.base.arithmetic.autocast. Raises InputError where this process cannot
    compute this way.
    """
    device = arithmetic.check()
    network.eval().requires_grad_(False)
    if arithmetic.kernels == "onednn":
        return fuse(network, torch.bfloat16 if arithmetic.precision == "bf16" else torch.float32)
    return network.to(device).to(memory_format=torch.channels_last)


def plain(network: N, arithmetic: Arithmetic) -> N:
    """Return `network` itself on its device, to be computed by torch's own kernels.

    With "bf16", call it within stages.base.arithmetic.autocast. Raises InputError where there is no such
    device.
    """
    return network.eval().requires_grad_(False).to(arithmetic.check())
