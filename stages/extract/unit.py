"""What the extract stage does, in words that travel: its settings, its unit of work, and which weights they mean."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from ...cache.reader import IndexRow
from ...cache.spec import FeatureSpec
from ...manifests.fingerprint import digest_json
from ..base.arithmetic import Arithmetic
from ..vision.demo import DEMO_BACKBONE
from ..vision.plan import ImageUnit

__all__ = ["ShardResult", "ShardUnit", "describe_transform", "levels_of"]


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
