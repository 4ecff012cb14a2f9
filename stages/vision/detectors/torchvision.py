"""torchvision's detectors by their own names, and the demonstration's small Faster R-CNN."""

from collections.abc import Mapping
from typing import Any

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.transforms.functional import pil_to_tensor

from ...base.arithmetic import Arithmetic
from ..demo import DEMO_DETECTOR
from ..demo_nets import demo_fasterrcnn
from ..fused import for_inference
from ..weights import load_into, weights_of
from . import BACKGROUND, detector_info
from .detector import Detector, Object, best_objects, things, within

__all__ = ["FasterRcnnDetector", "TorchvisionDetector", "build_torchvision", "classes_in"]

# Torchvision's files fasterrcnn_resnet50_fpn_coco-258fb6c6.pth and retinanet_resnet50_fpn_coco-eeacb38b.pth,
# whose names contain the start of their sha256, were trained with normalisations that add no epsilon to the
# variance; torchvision sets it to 0 for these files only.
_WITHOUT_EPSILON = ("258fb6c6", "eeacb38b")

# By the start of a name: the tensor that has an output for each class, and how many it has for each.
_CLASSES = {
    "retinanet": ("head.classification_head.cls_logits.weight", 9),
    "fcos": ("head.classification_head.cls_logits.weight", 1),
    "ssd300": ("head.classification_head.module_list.0.weight", 4),
    "ssdlite": ("head.classification_head.module_list.0.1.weight", 6),
}
_RCNN_CLASSES = ("roi_heads.box_predictor.cls_score.weight", 1)


class TorchvisionDetector(Detector):
    """A detector of torchvision's.

    names: of its objects, by label; those of other labels are left out.
    """

    def __init__(self, network: nn.Module, names: Mapping[int, str]) -> None:
        super().__init__(network)
        self.names = names

    def top_objects(self, image: Image.Image, count: int, min_score: float) -> list[Object]:
        """Return what Detector says.

        One image at a time: on a processor, batches of mixed sizes are padded to the largest and take longer,
        not shorter.
        """
        pixels = pil_to_tensor(image).to(self.device, torch.float32) / 255.0
        with torch.inference_mode():
            found: dict[str, Tensor] = self.network([pixels])[0]
        return best_objects(self.seen(found, image), self.names, count, min_score)

    def seen(self, found: dict[str, Tensor], image: Image.Image) -> dict[str, Tensor]:
        """Return what was found as far as it lies in the image."""
        return within(found, image)


class FasterRcnnDetector(TorchvisionDetector):
    """A Faster R-CNN, which computes as stages.vision.fused makes it."""

    def __init__(self, network: nn.Module, names: Mapping[int, str]) -> None:
        super().__init__(network, names)
        for head in (self.network.rpn.head, self.network.roi_heads.box_predictor):
            head.register_forward_hook(_in_float32)

    def seen(self, found: dict[str, Tensor], image: Image.Image) -> dict[str, Tensor]:
        return found  # torchvision has cut its boxes, and left out the smallest

    def prepare(self, arithmetic: Arithmetic) -> None:
        for_inference(self.network, arithmetic)


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


def classes_in(name: str, state: Mapping[str, Tensor]) -> int:
    """Return the number of classes, with the background, that a state of the detector `name` tells apart.

    It is 0 where that is not to be seen.
    """
    tensor, each = next((of for start, of in _CLASSES.items() if name.startswith(start)), _RCNN_CLASSES)
    return len(state[tensor]) // each if tensor in state else 0


def build_torchvision(name: str, choice: str, min_score: float) -> TorchvisionDetector:
    """Return the detector `name` with the weights that `choice` stands for.

    Where a file has another number of classes, they are named class-1, class-2, ...
    """
    known = detector_info(name).categories
    classes = len(known)

    def build(state: dict[str, Tensor] | None) -> nn.Module:
        nonlocal classes
        if state is not None:
            classes = classes_in(name, state) or classes
        if name == DEMO_DETECTOR:
            network: nn.Module = demo_fasterrcnn()
        else:
            network = torchvision.models.get_model(
                name, weights=None, weights_backbone=None, num_classes=classes
            )
        # Torchvision drops objects below this before its own top 100; its default of 0.05 would hide what the
        # user asked for.
        heads: Any = network.roi_heads if isinstance(network, FasterRCNN) else network
        heads.score_thresh = min_score
        return network

    source = weights_of(name, choice)
    network: Any = load_into(build, source)
    if source.digest().startswith(_WITHOUT_EPSILON):
        for module in network.backbone.body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    if len(known) != classes:
        known = (BACKGROUND, *(f"class-{number}" for number in range(1, classes)))
    names = dict(enumerate(known))
    if isinstance(network, FasterRCNN):
        return FasterRcnnDetector(network, names)
    return TorchvisionDetector(network, things(names))
