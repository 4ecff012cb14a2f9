"""torchvision's ResNets, and the demonstration's narrow one: their four stages are a backbone's levels."""

import torchvision
from torch import Tensor, nn
from torchvision.models import ResNet

from ..demo import DEMO_BACKBONE
from ..demo_nets import demo_resnet
from ..weights import load_into, weights_of
from . import BackboneInfo
from .backbone import Backbone

__all__ = ["ResNetBackbone", "build_resnet"]


class ResNetBackbone(Backbone):
    """A ResNet without its classifier, as a backbone of four levels.

    With `recompute`, blocks that learn keep no activations for the backward pass and compute them again
    there: less memory, more time.
    """

    def __init__(self, info: BackboneInfo, resnet: ResNet, *, recompute: bool = False) -> None:
        super().__init__(info)
        resnet.fc = nn.Identity()
        self.resnet = resnet
        self.recompute = recompute
        self.eval()

    @property
    def network(self) -> nn.Module:
        network: nn.Module = self.resnet
        return network

    @property
    def parts(self) -> list[list[nn.Module]]:
        net = self.resnet
        return [[net.conv1, net.bn1], [net.layer1], [net.layer2], [net.layer3], [net.layer4]]

    def forward(self, pixels: Tensor) -> list[Tensor]:
        net = self.resnet
        current: Tensor = net.maxpool(net.relu(net.bn1(net.conv1(pixels))))
        maps = []
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            for block in stage:
                current = self.computed(block, current, recompute=self.recompute)
            maps.append(current)
        return maps


def build_resnet(info: BackboneInfo, weights: str, *, recompute: bool = False) -> ResNetBackbone:
    """Return the backbone `info` with the weights that `weights` stands for.

    A weights file is a ResNet's state dict, or a detector's, of which the backbone's part is taken.
    """

    def build(state: dict[str, Tensor] | None) -> nn.Module:
        if state is not None:
            _keep_body(state)
        resnet: nn.Module = (
            demo_resnet()
            if info.name == DEMO_BACKBONE
            else torchvision.models.get_model(info.name, weights=None)
        )
        resnet.fc = nn.Identity()
        return resnet

    resnet = load_into(build, weights_of(info.name, weights))
    assert isinstance(resnet, ResNet)
    return ResNetBackbone(info, resnet, recompute=recompute)


def _keep_body(state: dict[str, Tensor]) -> None:
    """Reduce a ResNet's or a detector's state, in place, to the layers below the classifier."""
    prefix = "backbone.body."
    body = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    kept = body or {name: value for name, value in state.items() if not name.startswith("fc.")}
    state.clear()
    state.update(kept)
