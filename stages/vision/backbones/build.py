"""One way to build any backbone."""

from . import backbone_info
from .backbone import Backbone
from .staged import build_staged
from .torchvision import build_resnet

__all__ = ["build_backbone"]


def build_backbone(name: str, weights: str, *, recompute: bool = False) -> Backbone:
    """Return the backbone `name` in evaluation mode, with the weights that `weights` stands for.

    weights: "default", "random" or a file (stages.vision.weights). recompute: blocks that learn keep no
    activations for the backward pass and compute them again there: less memory, more time.
    """
    info = backbone_info(name)
    if info.fused:
        return build_resnet(info, weights, recompute=recompute)
    return build_staged(info, weights, recompute=recompute)
