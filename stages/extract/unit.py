"""The extract stage's unit of work, in words that travel to a worker.

A unit is the images of a shard and the targets that are made of them, one a feature set. How to use it:

    target = Target(spec, weights, str(run.features), "00000")      # features/shard-00000.h5
    unit = ShardUnit((target, grid), arithmetic, images)
    for target, result in zip(unit.targets, extract_shard(unit)):   # stages.extract.work
        ...                                                         # result.rows, result.failed

What a shard of a set holds depends on its spec, the arithmetic and the images of the unit, and on nothing
else: neither on the other targets nor on whether their shards are there already. Hence the rule that all
views of an image go through the network together, whatever the sets take: the last bits of a view can depend
on how many views go with it (they do with torch's own kernels in fp32). So a set of the whole images alone
takes as long as one of all views.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from ...cache.reader import IndexRow
from ...cache.spec import FeatureSpec
from ...manifests.fingerprint import digest_json
from ..base.arithmetic import Arithmetic
from ..vision.plan import ImageUnit

__all__ = ["ShardResult", "ShardUnit", "Target"]


@dataclass(frozen=True)
class Target:
    """A shard of one feature set: what its numbers are, the backbone's weights as the settings name them, and
    where it lies, as shard-<name>.h5 in `folder`."""

    spec: FeatureSpec
    weights: str
    folder: str
    name: str

    @property
    def path(self) -> Path:
        """The shard's file."""
        return Path(self.folder) / f"shard-{self.name}.h5"


@dataclass(frozen=True)
class ShardUnit:
    """The work of one shard of each target, as it travels to a worker."""

    targets: tuple[Target, ...]
    arithmetic: Arithmetic
    images: tuple[ImageUnit, ...]

    def digest(self, target: Target) -> str:
        """Return the digest of what decides the numbers of the shard of `target`."""
        identity: Mapping[str, Any] = self.arithmetic.identity
        images = [[image.key, image.inputs] for image in self.images]
        return digest_json({"spec": target.spec.identity, **identity, "images": images})

    def __len__(self) -> int:
        return len(self.images)

    def halves(self) -> tuple[Self, Self]:
        """Return two units that do the same work: so an image that crashes its worker is cornered."""
        middle = len(self.images) // 2
        first, second = (
            replace(
                self,
                targets=tuple(replace(target, name=f"{target.name}.{i}") for target in self.targets),
                images=part,
            )
            for i, part in enumerate((self.images[:middle], self.images[middle:]))
        )
        return first, second


@dataclass(frozen=True)
class ShardResult:
    """What a worker reports of one target: the index rows of its shard, and the images that it could not use.

    failed: (key, reason) of each such image.
    """

    rows: tuple[IndexRow, ...]
    failed: tuple[tuple[str, str], ...]
