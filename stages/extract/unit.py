"""The extract stage's unit of work, as plain data that can be sent to a worker.

A unit is the images of a shard and the targets made of them, one per feature set. How to use it:

    target = Target(spec, weights, str(run.features), "00000")      # features/shard-00000.h5
    unit = ShardUnit((target, grid), arithmetic, images)
    for target, result in zip(unit.targets, extract_shard(unit)):   # stages.extract.work
        ...                                                         # result.rows, result.failed

The content of a set's shard depends only on its spec, the arithmetic and the images of the unit. It depends
neither on the other targets nor on whether their shards already exist. Therefore all views of an image go
through the network together, whatever the sets use: the last bits of a view can depend on how many views go
with it (they do with torch's own kernels in fp32). So a set of only the whole images takes as long as one of
all views.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from ...cache.reader import IndexRow
from ...cache.spec import FeatureSpec
from ...manifests.fingerprint import digest_json
from ..base.arithmetic import Arithmetic
from ..vision.outcomes import Failure
from ..vision.plan import ImageUnit

__all__ = ["ShardResult", "ShardUnit", "Target"]


@dataclass(frozen=True)
class Target:
    """A shard of one feature set.

    spec: what its numbers are. weights, backbone: as the settings name them; a backbone that the spec names
    need not be. folder, name: the shard is the file shard-<name>.h5 in `folder`.
    """

    spec: FeatureSpec
    weights: str
    folder: str
    name: str
    backbone: str = ""

    @property
    def path(self) -> Path:
        """Return the shard's file."""
        return Path(self.folder) / f"shard-{self.name}.h5"


@dataclass(frozen=True)
class ShardUnit:
    """The work of one shard of each target, as it is sent to a worker."""

    targets: tuple[Target, ...]
    arithmetic: Arithmetic
    images: tuple[ImageUnit, ...]

    def digest(self, target: Target) -> str:
        """Return the digest of everything that decides the numbers of the shard of `target`."""
        identity: Mapping[str, Any] = self.arithmetic.identity
        images = [[image.key, image.inputs] for image in self.images]
        return digest_json({"spec": target.spec.identity, **identity, "images": images})

    def __len__(self) -> int:
        return len(self.images)

    @property
    def device(self) -> str:
        """Return the device that the unit's network computes on."""
        return self.arithmetic.device

    def halves(self) -> tuple[Self, Self]:
        """Return two units that do the same work: halving isolates an image that crashes its worker."""
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
    """What a worker reports about one target: its shard's index rows, and the images it could not use.

    failed: (key, why) of each such image.
    """

    rows: tuple[IndexRow, ...]
    failed: tuple[tuple[str, Failure], ...]
