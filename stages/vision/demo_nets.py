"""The demonstration's networks: a narrow ResNet, and a Faster R-CNN on it.

They are small enough to ship trained and to run on any CPU.

Both are torchvision's own architectures with fewer channels, so that whatever reads a ResNet's stages or a
detector's output reads these. The detector's body IS the ResNet: its keys under `backbone.body.` are those of
`demo_resnet()`, without the `fc` layer.
"""

from collections.abc import Sequence

from torch import nn
from torchvision.models import ResNet
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.resnet import BasicBlock
from torchvision.ops import MultiScaleRoIAlign

from .demo import DEMO_LEVELS, KINDS

__all__ = ["demo_fasterrcnn", "demo_resnet"]

_PYRAMID_CHANNELS = 64
_HEAD_FEATURES = 128
_ROI_SIDE = 5


class _NarrowResNet(ResNet):  # type: ignore[misc]  # torchvision has no types
    """torchvision's ResNet with one basic block per stage.

    Its stages have `widths` channels, its stem `widths[0]`.
    """

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=num_classes)
        # torchvision fixes the widths at 64 to 512 in its constructor. Building the parts again keeps its
        # names and its forward.
        self.inplanes = widths[0]
        self.conv1 = nn.Conv2d(3, widths[0], kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = self._make_layer(BasicBlock, widths[0], 1)
        self.layer2 = self._make_layer(BasicBlock, widths[1], 1, stride=2)
        self.layer3 = self._make_layer(BasicBlock, widths[2], 1, stride=2)
        self.layer4 = self._make_layer(BasicBlock, widths[3], 1, stride=2)
        self.fc = nn.Linear(widths[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def demo_resnet() -> ResNet:
    """Return an untrained ResNet whose stages give DEMO_LEVELS at 1/4, 1/8, 1/16 and 1/32 of the input."""
    return _NarrowResNet(DEMO_LEVELS, num_classes=len(KINDS))


def demo_fasterrcnn() -> FasterRCNN:
    """Return an untrained Faster R-CNN for scenes of about 160 pixels.

    Its labels index the background and KINDS.

    It takes images as torchvision's detectors do: RGB tensors (3, height, width) from 0 to 1, normalised
    inside with the ImageNet statistics, and resized so that the shorter side is 160 pixels.
    """
    backbone = BackboneWithFPN(
        demo_resnet(),
        return_layers={f"layer{stage + 1}": str(stage) for stage in range(4)},
        in_channels_list=list(DEMO_LEVELS),
        out_channels=_PYRAMID_CHANNELS,
    )
    return FasterRCNN(
        backbone,
        min_size=160,
        max_size=240,
        # Height over width: a wide building, a ball or a logo, a person. One side per level of the pyramid,
        # in pixels.
        rpn_anchor_generator=AnchorGenerator(
            sizes=((24,), (40,), (64,), (100,), (140,)), aspect_ratios=((0.8, 1.25, 2.0),) * 5
        ),
        rpn_pre_nms_top_n_train=400,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_train=200,
        rpn_post_nms_top_n_test=100,
        rpn_batch_size_per_image=64,
        box_roi_pool=MultiScaleRoIAlign(
            featmap_names=["0", "1", "2", "3"], output_size=_ROI_SIDE, sampling_ratio=2
        ),
        box_head=TwoMLPHead(_PYRAMID_CHANNELS * _ROI_SIDE**2, _HEAD_FEATURES),
        box_predictor=FastRCNNPredictor(_HEAD_FEATURES, 1 + len(KINDS)),
        box_batch_size_per_image=64,
        box_detections_per_img=20,
    )
