"""What the detect stage does, in words that travel: its settings, its unit of work, and which weights they mean."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from ...manifests.errors import InputError
from ...manifests.fingerprint import digest_json
from ..compute import Arithmetic
from ..stage import setting

__all__ = ["DEMO_DETECTOR", "ChunkUnit", "DetectSettings", "chunk_tables"]

DEMO_DETECTOR = "demo_fasterrcnn"
DETECTORS = (
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    DEMO_DETECTOR,
)


@dataclass(frozen=True)
class DetectSettings:
    """The table [detect] of run.toml."""

    detector: str = setting(
        "fasterrcnn_resnet50_fpn_v2", "one of torchvision's Faster R-CNNs, or demo_fasterrcnn"
    )
    weights: str = setting("default", "'default' (torchvision's COCO weights), a file, or 'random'")
    objects: int = setting(3, "objects kept an image, the paper's m")
    min_score: float = setting(0.05, "objects below this score are not kept")
    precision: str = setting("auto", "auto, fp32 or bf16; auto is bf16 where the hardware multiplies it")
    crops: bool = setting(True, "write crops/ for people to look at")
    chunk: int = setting(32, "images a task; what a kill can lose of each worker")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")

    def __post_init__(self) -> None:
        if self.detector not in DETECTORS:
            raise InputError(f"detector {self.detector!r} is not one of {', '.join(DETECTORS)}")
        if self.objects < 0 or self.objects > 100:
            raise InputError(f"detect: objects must be from 0 to 100, not {self.objects}")
        if self.chunk < 1:
            raise InputError("detect: chunk must be at least 1")


@dataclass(frozen=True)
class ChunkUnit:
    """The work of one chunk of images (key, path), as it travels to a worker. Its finished tables bear its digest as their name."""

    work: str
    crops: str | None
    detector: str
    weights: str
    objects: int
    min_score: float
    arithmetic: Arithmetic
    images: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def stem(self) -> Path:
        return Path(self.work) / digest_json([key for key, _ in self.images])

    def halves(self) -> tuple[Self, Self]:
        """Two units that together do the same work; how an image that crashes its worker is cornered."""
        middle = len(self.images) // 2
        return replace(self, images=self.images[:middle]), replace(self, images=self.images[middle:])


def chunk_tables(stem: Path) -> tuple[Path, Path]:
    """The outcomes come second: where they are, the chunk is complete."""
    return stem.with_name(f"{stem.name}.detections.parquet"), stem.with_name(f"{stem.name}.outcomes.parquet")
