"""The detect stage's unit of work, as plain data that can be sent to a worker."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from ...manifests.fingerprint import digest_json
from ..base.arithmetic import Arithmetic

__all__ = ["ChunkUnit", "chunk_tables"]


@dataclass(frozen=True)
class ChunkUnit:
    """The work of one chunk of images (key, path), as it is sent to a worker.

    Its finished tables are named after its digest.
    """

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
    def device(self) -> str:
        """Return the device that the unit's network computes on."""
        return self.arithmetic.device

    @property
    def stem(self) -> Path:
        """Return the path that the names of the chunk's tables start with."""
        return Path(self.work) / digest_json([key for key, _ in self.images])

    @property
    def missed_stem(self) -> Path:
        """Return the same for a chunk with images that could not be read: no later run takes it for done."""
        return self.stem.with_name(f"{self.stem.name}-missed")

    def halves(self) -> tuple[Self, Self]:
        """Return two units that do the same work: halving isolates an image that crashes its worker."""
        middle = len(self.images) // 2
        return replace(self, images=self.images[:middle]), replace(self, images=self.images[middle:])


def chunk_tables(stem: Path) -> tuple[Path, Path]:
    """Return the tables of a chunk. The outcomes come second: where they exist, the chunk is complete."""
    return stem.with_name(f"{stem.name}.detections.parquet"), stem.with_name(f"{stem.name}.outcomes.parquet")
