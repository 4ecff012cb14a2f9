"""The detectors by name: what planning must know of one. Importing this needs no torch."""

from dataclasses import dataclass
from pathlib import Path

from ....manifests.errors import unknown_name
from ...base.settings import HUB
from ..demo import DEMO_DETECTOR, DEMO_WEIGHTS, KINDS

__all__ = ["BACKGROUND", "COCO", "DETECTORS", "DetectorInfo", "check_detector", "detector_info", "is_fused"]

BACKGROUND = "__background__"

# COCO's categories in the order of its numbers, as torchvision has them: "N/A" where COCO left a number
# unused.
_COCO = """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
    N/A, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra,
    giraffe, N/A, backpack, umbrella, N/A, N/A, handbag, tie, suitcase, frisbee, skis, snowboard, sports
    ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, N/A, wine
    glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog,
    pizza, donut, cake, chair, couch, potted plant, bed, N/A, dining table, N/A, N/A, toilet, N/A, tv,
    laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, N/A,
    book, clock, vase, scissors, teddy bear, hair drier, toothbrush
"""


@dataclass(frozen=True)
class DetectorInfo:
    """The facts of a detector that are known without building it.

    categories: the names of its labels, of which the first is the background. weights: where its default
    weights are, an address or a file that ships with this package. fused: whether it is a Faster R-CNN, of
    which stages.vision.fused makes one that computes faster, also in bf16; others compute as they are.
    """

    name: str
    categories: tuple[str, ...]
    weights: str | Path
    fused: bool = False


COCO = (BACKGROUND, *" ".join(_COCO.split()).split(", "))


def _torchvision(name: str, file: str) -> DetectorInfo:
    """Return torchvision's detector `name`, trained on COCO."""
    return DetectorInfo(name, COCO, f"https://download.pytorch.org/models/{file}", "rcnn" in name)


DETECTORS: dict[str, DetectorInfo] = {
    info.name: info
    for info in (
        _torchvision("fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth"),
        _torchvision("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"),
        _torchvision("fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth"),
        _torchvision(
            "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth"
        ),
        _torchvision("retinanet_resnet50_fpn_v2", "retinanet_resnet50_fpn_v2_coco-5905b1c5.pth"),
        _torchvision("retinanet_resnet50_fpn", "retinanet_resnet50_fpn_coco-eeacb38b.pth"),
        _torchvision("fcos_resnet50_fpn", "fcos_resnet50_fpn_coco-99b0c9b7.pth"),
        _torchvision("ssd300_vgg16", "ssd300_vgg16_coco-b556d3b4.pth"),
        _torchvision("ssdlite320_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"),
        DetectorInfo(DEMO_DETECTOR, (BACKGROUND, *KINDS), DEMO_WEIGHTS, fused=True),
    )
}


def detector_info(name: str) -> DetectorInfo:
    """Return the facts of the detector `name`.

    Raises InputError, which lists the known ones, where there is none.
    """
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    return DETECTORS[name]


def check_detector(name: str) -> None:
    """Raise InputError where `name` is neither one of DETECTORS nor one of the hub."""
    if not (name.startswith(HUB) and name != HUB):
        detector_info(name)


def is_fused(name: str) -> bool:
    """Return whether the detector `name` is one that stages.vision.fused speeds up."""
    return name in DETECTORS and DETECTORS[name].fused
