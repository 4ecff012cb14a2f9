"""torchvision's VGG, ConvNeXt, Swin, EfficientNet and RegNet: sequences of modules, cut into levels."""

from itertools import pairwise

import torch
import torchvision
from torch import Tensor, nn

from ..weights import load_into, weights_of
from . import BackboneInfo
from .backbone import Backbone
from .layout import channels_first, measured

__all__ = ["StagedBackbone", "build_staged"]

# Divisible by every stride, and large enough for the windows of a Swin.
_SIDE = 64


class StagedBackbone(Backbone):
    """A network without its classifier, as a backbone whose levels are its last maps at each stride.

    Strides below 4 are the stem's. Where the first level begins with the pixels, as in a ConvNeXt, the stem
    is its first module. With `recompute`, modules that learn keep no activations for the backward pass and
    compute them again there.
    """

    def __init__(self, info: BackboneInfo, network: nn.Module, *, recompute: bool = False) -> None:
        super().__init__(info)
        self.staged = network
        self.recompute = recompute
        self.eval()
        self._ends, self._last = self._cut()

    @property
    def network(self) -> nn.Module:
        return self.staged

    @property
    def parts(self) -> list[list[nn.Module]]:
        modules = _modules(self.info.name, self.staged)
        stem = max(1, self._ends[0])
        ends = [0, stem, *(end + 1 for end in self._ends[1:])]
        return [modules[first:last] for first, last in pairwise(ends)]

    def _cut(self) -> tuple[list[int], bool]:
        """Return where the stem and each level end, and whether channels are last, by one forward pass.

        The first number counts the stem's modules, each other is the place of a level's last module.
        """
        device = next(self.staged.parameters()).device
        maps, current = [], torch.zeros(1, 3, _SIDE, _SIDE, device=device)
        with torch.inference_mode():
            for module in _modules(self.info.name, self.staged):
                current = module(current)
                maps.append(current)
        found = measured(maps, _SIDE)
        last_at = {stride: place for place, stride in enumerate(found.strides)}
        stem = sum(stride < self.info.strides[0] for stride in found.strides)
        return [stem, *(last_at[stride] for stride in self.info.strides)], found.channels_last

    def forward(self, pixels: Tensor) -> list[Tensor]:
        current, maps = pixels, []
        for place, module in enumerate(_modules(self.info.name, self.staged)):
            current = self.computed(module, current, recompute=self.recompute)
            if place in self._ends[1:]:
                maps.append(channels_first(current) if self._last else current)
        return maps


def _modules(name: str, network: nn.Module) -> list[nn.Module]:
    """Return the modules of a network in the order in which they run, up to the last level's maps."""
    if name.startswith("regnet"):
        return [network.get_submodule("stem"), *network.get_submodule("trunk_output").children()]
    modules = list(network.get_submodule("features").children())
    return modules[:-1] if name.startswith("efficientnet") else modules  # its last one belongs to the head


def build_staged(info: BackboneInfo, weights: str, *, recompute: bool = False) -> StagedBackbone:
    """Return the backbone `info` with the weights that `weights` stands for.

    A weights file is the state dict of the whole network, or of one without the head.
    """

    def build(state: dict[str, Tensor] | None) -> nn.Module:
        network: nn.Module = torchvision.models.get_model(info.name, weights=None)
        # What runs after the last level is neither kept nor saved.
        for name, _ in list(network.named_children()):
            if name not in ("features", "stem", "trunk_output"):
                setattr(network, name, nn.Identity())
        if info.name.startswith("efficientnet"):
            features = network.get_submodule("features")
            setattr(features, str(len(list(features.children())) - 1), nn.Identity())
        if state is not None:
            kept = network.state_dict().keys()
            heads = ("classifier.", "head.", "fc.", "norm.", "features.")
            for name in [name for name in state if name not in kept and name.startswith(heads)]:
                del state[name]
        return network

    return StagedBackbone(info, load_into(build, weights_of(info.name, weights)), recompute=recompute)
