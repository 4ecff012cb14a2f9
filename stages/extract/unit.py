"""The extract stage's unit of work, in words that travel to a worker."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from ...cache.reader import IndexRow
from ...cache.spec import FeatureSpec
from ...manifests.fingerprint import digest_json
from ..base.arithmetic import Arithmetic
from ..vision.plan import ImageUnit

__all__ = ["ShardResult", "ShardUnit"]


@dataclass(frozen=True)
class ShardUnit:
    """The work of one shard, as it travels to a worker."""

    name: str
    folder: str
    spec: FeatureSpec
    weights: str
    arithmetic: Arithmetic
    images: tuple[ImageUnit, ...]

    @property
    def path(self) -> Path:
        return Path(self.folder) / f"shard-{self.name}.h5"

    @property
    def digest(self) -> str:
        return digest_json(
            {
                "spec": self.spec.identity,
                **self.arithmetic.identity,
                "images": [[i.key, i.inputs] for i in self.images],
            }
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
    """What a worker reports: the index rows of its shard, and the images that it could not use with their
    reasons."""

    rows: tuple[IndexRow, ...]
    failed: tuple[tuple[str, str], ...]
