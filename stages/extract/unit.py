"""What the extract stage does, in words that travel: its settings, its unit of work, and which weights they mean."""

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from ...cache.reader import IndexRow
from ...cache.shards import STORAGE_DTYPES, FeatureSpec
from ...manifests.errors import InputError
from ...manifests.fingerprint import digest_json
from ..compute import Arithmetic
from ..stage import setting

__all__ = [
    "DEMO_BACKBONE",
    "Box",
    "ExtractSettings",
    "ImageUnit",
    "ShardResult",
    "ShardUnit",
    "describe_transform",
    "levels_of",
]

DEMO_BACKBONE = "demo_resnet"
_BACKBONES = (
    rf"resnet(18|34|50|101|152)|resnext(50_32x4d|101_32x8d|101_64x4d)|wide_resnet(50|101)_2|{DEMO_BACKBONE}"
)

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the upright image


@dataclass(frozen=True)
class ExtractSettings:
    """The table [extract] of run.toml."""

    backbone: str = setting("resnet50", "one of torchvision's ResNets, or demo_resnet")
    weights: str = setting("default", "'default' (torchvision's ImageNet weights), a file, or 'random'")
    size: int = setting(224, "side of a view in pixels")
    pooled: int = setting(2, "side of a pooled pyramid level, the p of docs/method.md")
    dtype: str = setting("float16", "what is stored: float16, bfloat16 or float32")
    precision: str = setting("auto", "auto, fp32 or bf16; auto is bf16 where the hardware multiplies it")
    shard_rows: int = setting(256, "images a shard, which is a task; what a kill can lose of each worker")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")

    def __post_init__(self) -> None:
        if not re.fullmatch(_BACKBONES, self.backbone):
            raise InputError(
                f"backbone {self.backbone!r} is neither a torchvision ResNet (resnet50, wide_resnet50_2, ...) nor {DEMO_BACKBONE}"
            )
        if self.dtype not in STORAGE_DTYPES:
            raise InputError(f"extract: dtype {self.dtype!r} is not one of {', '.join(STORAGE_DTYPES)}")
        if min(self.size, self.pooled, self.shard_rows) < 1:
            raise InputError("extract: size, pooled and shard_rows must be at least 1")


@dataclass(frozen=True)
class ImageUnit:
    key: str
    path: str
    boxes: tuple[Box, ...]

    @property
    def inputs(self) -> str:
        return digest_json([list(box) for box in self.boxes])


@dataclass(frozen=True)
class ShardUnit:
    """The work of one shard, as it travels to a worker."""

    name: str
    folder: str
    spec: FeatureSpec
    weights: str
    size: int
    arithmetic: Arithmetic
    images: tuple[ImageUnit, ...]

    @property
    def path(self) -> Path:
        return Path(self.folder) / f"shard-{self.name}.h5"

    @property
    def digest(self) -> str:
        spec = asdict(self.spec)
        return digest_json(
            {"spec": spec, **self.arithmetic.identity, "images": [[i.key, i.inputs] for i in self.images]}
        )

    def __len__(self) -> int:
        return len(self.images)

    def halves(self) -> tuple[Self, Self]:
        """Two units that together do the same work; how an image that crashes its worker is cornered."""
        middle = len(self.images) // 2
        parts = (self.images[:middle], self.images[middle:])
        first, second = (replace(self, name=f"{self.name}.{i}", images=part) for i, part in enumerate(parts))
        return first, second


@dataclass(frozen=True)
class ShardResult:
    """What a worker reports: the index rows of its shard, and the images that it could not use with their reasons."""

    rows: tuple[IndexRow, ...]
    failed: tuple[tuple[str, str], ...]


def describe_transform(size: int) -> str:
    """What happens to pixels, in words, for the shards' attributes and the fingerprint."""
    return (
        f"PIL bilinear, plain resize to {size}x{size}; scaled to 0..1; ImageNet mean and standard deviation"
    )


def levels_of(backbone: str) -> tuple[int, int, int, int]:
    """The channels of a backbone's four levels, known without building it: what plans needs no torchvision, which takes 160 MB."""
    first = {DEMO_BACKBONE: 24, "resnet18": 64, "resnet34": 64}.get(backbone, 256)
    return (first, 2 * first, 4 * first, 8 * first)
