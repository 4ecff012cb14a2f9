"""How close features are: computed again to recorded ones, and a run's to a lock's probes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cache.reader import FeatureCache
from ...cache.shards import Shard
from ...cache.spec import as_numbers
from ..base.stage import Rerun, Verdict

__all__ = ["Apart", "feature_distance", "feature_probes"]

# How far another order of sums may move a result, on another machine or with another version. Beyond this it
# is another result. bf16 keeps 8 bits.
_COSINE = {"fp32": 0.9999, "bf16": 0.99}
# Features computed in bf16 differ by 0.4 to 0.6% from those in fp32 (demo_resnet, ResNet-50 and -101). Ten
# times that has another cause.
_FEATURE_TOLERANCE = 0.05
# The number of images, and of values of each image's whole view, that a lock contains.
_IMAGES, _VALUES = 4, 16


@dataclass
class Apart:
    """The differences between shards that are computed again and the recorded ones, shard by shard."""

    stage: str
    precision: str
    remarks: list[str] = field(default_factory=list)
    _shards: int = 0
    _images: int = 0
    _equal: bool = True
    _same_images: bool = True
    _cosine: float = 1.0
    _distances: dict[str, float] = field(default_factory=dict)

    def add(self, old: Shard, new: Shard) -> None:
        """Compare one shard."""
        self._shards, self._images = self._shards + 1, self._images + len(old.keys)
        if new.keys != old.keys or not np.array_equal(new.view_mask, old.view_mask):
            self._same_images = False
            self.remarks.append(f"{old.path.name} holds other images or views")
            return
        self._equal = self._equal and np.array_equal(new.checksums, old.checksums)
        start = 0
        for level, channels in enumerate(old.spec.levels, start=1):
            a, b = (
                as_numbers(shard.pyramid, shard.spec.dtype).astype(np.float32)[:, :, start : start + channels]
                for shard in (old, new)
            )
            start += channels
            name, off = f"level {level}", float(np.abs(a - b).max(initial=0.0))
            self._distances[name] = max(self._distances.get(name, 0.0), off)
            self._cosine = min(self._cosine, _least_cosine(a[old.view_mask], b[old.view_mask]))

    def rerun(self) -> Rerun:
        """Return the result of the comparison."""
        checked = f"{self._shards} shards with {self._images} images"
        if not self._same_images:
            return Rerun(self.stage, "different", checked, remarks=self.remarks)
        if self._equal:
            return Rerun(self.stage, "equal", checked, remarks=self.remarks)
        verdict: Verdict = "close" if self._cosine >= _COSINE[self.precision] else "different"
        distances = {**self._distances, "least cosine": self._cosine}
        return Rerun(self.stage, verdict, checked, distances, self.remarks)


def _least_cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Return the smallest cosine between the vectors of a view in `a` and in `b`, each (views, C, p, p).

    The cosine of two vectors of length 0 is 1.
    """
    a, b = (side.reshape(len(side), -1).astype(np.float64) for side in (a, b))
    product, length = (a * b).sum(1), np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = (a == b).all(1)
    return float(np.where(same, 1.0, product / np.where(length > 0, length, 1.0)).min(initial=1.0))


def feature_probes(folder: Path) -> list[dict[str, Any]]:
    """Return some values of the first images of a cache."""
    cache = FeatureCache(folder)
    return [{"image": key, "values": _values(cache, key)} for key in sorted(cache)[:_IMAGES]]


def feature_distance(probes: Sequence[Mapping[str, Any]], folder: Path) -> tuple[bool, str]:
    """Return whether the probes are close to the same images' whole views here, and how close."""
    cache = FeatureCache(folder)
    shared = [probe for probe in probes if probe["image"] in cache]
    if not shared:
        return True, "the lock holds no value to compare"
    there = np.array([probe["values"] for probe in shared])
    here = np.array([_values(cache, probe["image"]) for probe in shared])
    if there.shape != here.shape:
        return False, "the lock's values are of another shape"
    off = np.abs(there - here)
    relative = float(np.linalg.norm(there - here) / max(float(np.linalg.norm(there)), 1e-12))
    return relative <= _FEATURE_TOLERANCE, (
        f"{off.size} sampled values are at most {off.max():.2g} and on average {off.mean():.2g} away "
        f"({relative:.2%} of their norm)"
    )


def _values(cache: FeatureCache, key: str) -> list[float]:
    """Return evenly spaced values of the whole view of one image (C, p, p), which no box can change."""
    values = cache.gather([key])[0][0, 0].ravel()
    places = np.linspace(0, len(values) - 1, _VALUES).round().astype(int)
    return [float(f"{float(value):.6g}") for value in values[places]]
