"""One way to build any backbone."""

from . import backbone_info
from .backbone import Backbone
from .other import build_other
from .outside import is_outside, outside_model
from .staged import build_staged
from .torchvision import build_resnet

__all__ = ["build_backbone"]


def build_backbone(name: str, weights: str, *, recompute: bool = False) -> Backbone:
    """Return the backbone `name` in evaluation mode, with the weights that `weights` stands for.

    weights: "default", "random" or a file (stages.vision.weights), or a folder with all of a backbone of
    another library. recompute: blocks of torchvision's that learn keep no activations for the backward pass
    and compute them again there: less memory, more time.
    """
    if is_outside(name):
        return build_other(outside_model(name, weights))
    info = backbone_info(name)
    if info.fused:
        return build_resnet(info, weights, recompute=recompute)
    return build_staged(info, weights, recompute=recompute)
