"""Object detectors: torchvision's Faster R-CNNs by their own names, and the demonstration's small one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.transforms.functional import pil_to_tensor

from ..demo import DEMO_DETECTOR
from ..demo_nets import demo_fasterrcnn
from ..weights import load_into, weights_of
from . import BACKGROUND, detector_info

__all__ = ["Detector", "Object", "build_detector"]

# Torchvision's file fasterrcnn_resnet50_fpn_coco-258fb6c6.pth, whose name contains the start of its sha256,
# was trained with normalisations that add no epsilon to the variance; torchvision sets it to 0 for this file
# only.
_WITHOUT_EPSILON = "258fb6c6"


@dataclass(frozen=True)
class Object:
    """A detected object: its box in pixels of the upright image, its category and its score in 0..1."""

    box: tuple[float, float, float, float]
    label: str
    score: float


class Detector:
    """A Faster R-CNN in evaluation mode with the names of its categories."""

    def __init__(self, network: FasterRCNN, categories: Sequence[str]) -> None:
        self.network = network.eval().requires_grad_(False)
        self.categories = categories
        heads: Any = network.roi_heads
        for head in (network.rpn.head, heads.box_predictor):
            head.register_forward_hook(_in_float32)

    def top_objects(self, image: Image.Image, count: int, min_score: float) -> list[Object]:
        """Return the `count` objects of the highest scores (at least `min_score`), best first.

        image: upright RGB.

        One image at a time: on a processor, batches of mixed sizes are padded to the largest and take longer,
        not shorter.
        """
        device = next(self.network.parameters()).device
        pixels = pil_to_tensor(image).to(device, torch.float32) / 255.0
        with torch.inference_mode():
            found: dict[str, Tensor] = self.network([pixels])[0]
        scores = found["scores"].float().cpu()
        # Torchvision sorts by score; a stable sort keeps its order among equals and makes the promise here.
        order = torch.argsort(scores, descending=True, stable=True)[:count].tolist()
        boxes, labels = found["boxes"].float().cpu().tolist(), found["labels"].cpu().tolist()
        return [
            Object(tuple(boxes[i]), self.categories[labels[i]], float(scores[i]))
            for i in order
            if float(scores[i]) >= min_score
        ]


def _in_float32(module: nn.Module, given: Any, made: Any) -> Any:
    """Widen what a head returns.

    torchvision computes boxes in its type: in bf16 a coordinate of 200 would be a pixel off, and scores would
    tie.
    """
    return (
        made.float()
        if isinstance(made, Tensor)
        else type(made)(_in_float32(module, given, part) for part in made)
    )


def build_detector(name: str, choice: str, min_score: float) -> Detector:
    """Return the detector `name` with the weights that `choice` stands for.

    Where a file has another number of classes, they are named class-1, class-2, ...
    """
    known = detector_info(name).categories
    classes = len(known)

    def build(state: dict[str, Tensor] | None) -> nn.Module:
        nonlocal classes
        if state is not None and "roi_heads.box_predictor.cls_score.weight" in state:
            classes = len(state["roi_heads.box_predictor.cls_score.weight"])
        if name == DEMO_DETECTOR:
            network: nn.Module = demo_fasterrcnn()
        else:
            network = torchvision.models.get_model(
                name, weights=None, weights_backbone=None, num_classes=classes
            )
        # Torchvision drops objects below this before its own top 100; its default of 0.05 would hide what the
        # user asked for.
        heads: Any = network.roi_heads
        heads.score_thresh = min_score
        return network

    source = weights_of(name, choice)
    network = load_into(build, source)
    assert isinstance(network, FasterRCNN)
    if source.digest().startswith(_WITHOUT_EPSILON):
        for module in network.backbone.body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    if len(known) != classes:
        known = (BACKGROUND, *(f"class-{number}" for number in range(1, classes)))
    return Detector(network, known)
