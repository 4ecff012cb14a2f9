"""The settings of the detect stage."""

from dataclasses import dataclass

from ...manifests.errors import InputError
from ..base.arithmetic import PRECISIONS
from ..base.settings import check_settings, setting
from ..vision.detectors import DETECTORS, check_detector, is_fused

__all__ = ["DetectSettings"]


@dataclass(frozen=True)
class DetectSettings:
    """The table [detect] of run.toml."""

    detector: str = setting(
        "fasterrcnn_resnet50_fpn_v2",
        "a detector of torchvision (Faster R-CNN, RetinaNet, FCOS, SSD), demo_fasterrcnn, or hf:NAME or "
        "hf:FOLDER of transformers (DETR, RT-DETR, D-FINE, YOLOS, ...); `doctor --detectors` lists them",
        words=tuple(DETECTORS),
    )
    weights: str = setting(
        "default",
        "'default' (torchvision's COCO weights; those of hf:NAME), a file (of hf: a folder), or 'random'",
        words=("default", "random"),
    )
    boxes: str = setting(
        "",
        "file of boxes that another detector found, JSON lines or COCO's results (.json); --detector is then "
        "not used",
        words=("",),
    )
    annotations: str = setting(
        "",
        "COCO's annotations, which say what the ids in `boxes` are; empty: files' names and COCO's numbers",
        words=("",),
    )
    objects: int = setting(3, "objects kept per image, the paper's m", at_least=0, at_most=100)
    min_score: float = setting(0.05, "objects below this score are not kept", at_least=0, at_most=1)
    precision: str = setting(
        "auto", "auto, fp32 or bf16; auto is bf16 where the hardware multiplies it", one_of=PRECISIONS
    )
    crops: bool = setting(True, "write crops/ for people to look at")
    chunk: int = setting(
        32, "images per task; the most that a kill can lose of each worker's work", at_least=1, at_most=2**16
    )
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")

    def __post_init__(self) -> None:
        check_settings("detect", self)
        check_detector(self.detector)
        if self.annotations and not self.boxes.endswith(".json"):
            raise InputError(
                "[detect] annotations say what ids in COCO's results are; name these with --boxes FILE.json"
            )
        if self.precision == "bf16" and not is_fused(self.detector):
            raise InputError(
                f"[detect] precision bf16 is for Faster R-CNNs, and {self.detector} computes in fp32; leave "
                "precision at auto"
            )
