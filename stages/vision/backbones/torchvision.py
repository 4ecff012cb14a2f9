"""The visual backbone: a torchvision ResNet whose four stages, pooled, are the pyramid of equations 1 and 2.

Equation 2 pools before its 1x1 convolution, so what is cached here is everything that the pixels contribute: the convolution, which
is trained, starts from the pooled maps.
"""

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from torch.utils.checkpoint import checkpoint
from torchvision.models import ResNet

from ..demo import DEMO_BACKBONE
from ..demo_nets import demo_resnet
from ..weights import load_into, weights_of

__all__ = ["MEAN", "STD", "Pyramid", "build_pyramid"]

# Of ImageNet, with which every torchvision ResNet was trained.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Pyramid(nn.Module):
    """A ResNet's four stages, each average-pooled to p x p and joined along the channels.

    Always in evaluation mode: BatchNorm uses and keeps the statistics that it was trained with, whatever `train()` is called on.
    With `recompute`, blocks that learn keep no activations for the backward pass and compute them again there: less memory, more time.
    """

    def __init__(self, resnet: ResNet, pooled: int, *, recompute: bool = False) -> None:
        super().__init__()
        resnet.fc = nn.Identity()
        self.resnet = resnet
        self.pooled = pooled
        self.recompute = recompute
        self.eval()

    @property
    def parts(self) -> list[list[nn.Module]]:
        """The modules of the stem, and of each stage, from the pixels on."""
        net = self.resnet
        return [[net.conv1, net.bn1], [net.layer1], [net.layer2], [net.layer3], [net.layer4]]

    @property
    def levels(self) -> tuple[int, ...]:
        """Channels of the four levels, from fine to coarse: (256, 512, 1024, 2048) for ResNet-50."""
        return tuple(_output_channels(getattr(self.resnet, f"layer{number}")) for number in (1, 2, 3, 4))

    def train(self, mode: bool = True) -> "Pyramid":
        return super().train(False)

    def forward(self, views: Tensor) -> Tensor:
        """views: (N, 3, S, S), normalised. Returns (N, sum of levels, p, p)."""
        net = self.resnet
        maps = net.maxpool(net.relu(net.bn1(net.conv1(views))))
        pooled = []
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            for block in stage:
                learns = self.recompute and any(parameter.requires_grad for parameter in block.parameters())
                maps = (
                    checkpoint(block, maps, use_reentrant=False)
                    if learns and torch.is_grad_enabled()
                    else block(maps)
                )
            # Adaptive pooling: 7x7 to 2x2 uses overlapping bins, so that no row or column is dropped.
            pooled.append(adaptive_avg_pool2d(maps, self.pooled))
        return torch.cat(pooled, dim=1)


def _output_channels(stage: nn.Module) -> int:
    last = [module for module in stage.modules() if isinstance(module, nn.BatchNorm2d)]
    # A block's last BatchNorm is its output's, unless a downsample path follows it: then both have the same width.
    return last[-1].num_features


def build_pyramid(name: str, choice: str, pooled: int, *, recompute: bool = False) -> Pyramid:
    """The backbone `name` with the weights that `choice` means, as a Pyramid (see there for `recompute`) in evaluation mode.

    A weights file is a ResNet's state dict, or a detector's, of which the backbone's part is taken.
    """

    def build(state: dict[str, Tensor] | None) -> nn.Module:
        if state is not None:
            _keep_body(state)
        resnet: nn.Module = (
            demo_resnet() if name == DEMO_BACKBONE else torchvision.models.get_model(name, weights=None)
        )
        resnet.fc = nn.Identity()
        return resnet

    resnet = load_into(build, weights_of(name, choice))
    assert isinstance(resnet, ResNet)
    return Pyramid(resnet, pooled, recompute=recompute)


def _keep_body(state: dict[str, Tensor]) -> None:
    """Reduce a ResNet's or a detector's state, in place, to the layers below the classifier."""
    prefix = "backbone.body."
    body = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    kept = body or {name: value for name, value in state.items() if not name.startswith("fc.")}
    state.clear()
    state.update(kept)
