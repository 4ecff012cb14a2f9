"""The detectors by name: what planning must know of one. Importing this needs no torch."""

from dataclasses import dataclass
from pathlib import Path

from ....manifests.errors import unknown_name
from ..demo import DEMO_DETECTOR, DEMO_WEIGHTS, KINDS

__all__ = ["BACKGROUND", "DETECTORS", "DetectorInfo", "detector_info"]

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
    weights are, an address or a file that ships with this package.
    """

    name: str
    categories: tuple[str, ...]
    weights: str | Path


def _faster_rcnn(name: str, file: str) -> DetectorInfo:
    """Return torchvision's Faster R-CNN `name`, trained on COCO."""
    categories = (BACKGROUND, *" ".join(_COCO.split()).split(", "))
    return DetectorInfo(name, categories, f"https://download.pytorch.org/models/{file}")


DETECTORS: dict[str, DetectorInfo] = {
    info.name: info
    for info in (
        _faster_rcnn("fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth"),
        _faster_rcnn("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"),
        _faster_rcnn("fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth"),
        _faster_rcnn(
            "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth"
        ),
        DetectorInfo(DEMO_DETECTOR, (BACKGROUND, *KINDS), DEMO_WEIGHTS),
    )
}


def detector_info(name: str) -> DetectorInfo:
    """Return the facts of the detector `name`.

    Raises InputError, which lists the known ones, where there is none.
    """
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    return DETECTORS[name]
