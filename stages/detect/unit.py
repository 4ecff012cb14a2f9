"""The detect stage's unit of work, in words that travel to a worker."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from ...manifests.fingerprint import digest_json
from ..base.arithmetic import Arithmetic

__all__ = ["ChunkUnit", "chunk_tables"]


@dataclass(frozen=True)
class ChunkUnit:
    """The work of one chunk of images (key, path), as it travels to a worker.

    Its finished tables bear its digest as their name.
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
    def stem(self) -> Path:
        """The path that the chunk's tables begin with."""
        return Path(self.work) / digest_json([key for key, _ in self.images])

    def halves(self) -> tuple[Self, Self]:
        """Return two units that do the same work: so an image that crashes its worker is cornered."""
        middle = len(self.images) // 2
        return replace(self, images=self.images[:middle]), replace(self, images=self.images[middle:])


def chunk_tables(stem: Path) -> tuple[Path, Path]:
    """Return the tables of a chunk. The outcomes come second: where they are, the chunk is complete."""
    return stem.with_name(f"{stem.name}.detections.parquet"), stem.with_name(f"{stem.name}.outcomes.parquet")
