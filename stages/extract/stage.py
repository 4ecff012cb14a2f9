"""The extract stage: images and boxes in, shards of pooled pyramids out.

A unit of work is one shard. Which images make it, and which of them go through the network together, is fixed by the tables and not
by the cluster, so that the numbers do not depend on how many workers there were or how often the job was killed.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ...cache.reader import FeatureCache, IndexRow, read_index, write_index
from ...cache.shards import SCHEMA_VERSION, Shard, ShardError, check_shard
from ...cache.spec import FeatureSpec
from ...manifests.errors import StageError
from ...manifests.files import remove_temporaries
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import DETECTIONS, IMAGES, OUTCOMES
from ...manifests.tables import (
    any_usable,
    sound_digests,
    table_digest,
    table_of,
    usable_images,
    write_table,
)
from ..base.ahead import Made
from ..base.arithmetic import Arithmetic
from ..base.stage import Stage
from ..base.tools import SILENT, Counts, Tools, UnitFailure
from ..vision.backbones import backbone_info
from ..vision.plan import ImageUnit, ViewPlan, planned_images
from ..vision.sets import PYRAMID
from ..vision.weights import weights_of
from .settings import ExtractSettings
from .unit import ShardResult, ShardUnit, Target

__all__ = ["Extract"]


@dataclass(frozen=True)
class Extract(Stage):
    """images.parquet and detections.parquet to features/. See Stage for the contract."""

    run: RunFolder
    settings: ExtractSettings
    objects: int

    name = "extract"
    schema_version = SCHEMA_VERSION

    def parameters(self) -> dict[str, Any]:
        s = self.settings
        return {
            "backbone": s.backbone,
            "dtype": s.dtype,
            "objects": self.objects,
            "pooled": s.pooled,
            **self.arithmetic.identity,
            "transform": str(backbone_info(s.backbone).transform(s.size)),
        }

    @property
    def arithmetic(self) -> Arithmetic:
        return Arithmetic.of(self.settings.device, self.settings.precision)

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        return {
            "images": table_digest(self.run.images, IMAGES, "prepare"),
            "detections": table_digest(self.run.detections, DETECTIONS, "detect"),
        }

    def weights(self) -> dict[str, str]:
        if not any_usable(self.run.images):
            return {}  # nothing to extract: a text-only run needs no weights file
        return {"backbone": weights_of(self.settings.backbone, self.settings.weights).digest()}

    def outputs(self) -> dict[str, str]:
        """The digest of what the index promises, shard by shard layout aside; a shard that is gone or has shrunk empties it."""
        found = sound_digests({"outcomes": (self.run.outcomes(self.name), OUTCOMES)})
        try:
            cache = FeatureCache(self.run.features)
            for name in cache.shards():
                check_shard(self.run.features / name)
            found["features"] = cache.digest()
        except StageError:
            return found
        return found

    def compute(self, tools: Tools) -> Counts:
        if remark := self.arithmetic.remark:
            tools.say(remark)
        remove_temporaries(self.run.features)
        images = self.images()
        spec = self.spec()
        kept, taken = self._reusable(spec, images)
        todo = [image for image in images if image.key not in kept] if kept else images
        units = self._units(spec, todo, taken)
        bar = tools.bar(len(todo), "extract", "image")
        rows = list(kept.values())
        failed: list[tuple[str, str]] = []
        for unit, result in tools.map(_extract_shard, units):
            if isinstance(result, UnitFailure):
                failed.extend((image.key, result.reason) for image in unit.images)
            else:
                (made,) = result
                rows.extend(made.rows)
                failed.extend(made.failed)
            bar.update(len(unit))
        bar.close()
        outcomes = [{"image_key": row.image_key, "status": "done", "reason": None} for row in rows]
        outcomes += [{"image_key": key, "status": "failed", "reason": reason} for key, reason in failed]
        write_table(
            self.run.outcomes(self.name),
            table_of(OUTCOMES, sorted(outcomes, key=lambda row: str(row["image_key"]))),
        )
        write_index(self.run.features, spec, rows)
        return Counts(
            "images",
            done=len(rows) - len(kept),
            skipped=len(kept),
            failed=len(failed),
            details={
                "views": int(sum(1 + min(len(image.boxes), self.objects) for image in todo)),
                "output": str(self.run.features),
            },
        )

    def finish(self) -> None:
        """Shards that the index does not name are leftovers of an older feature set."""
        named = set(FeatureCache(self.run.features).shards())
        for path in self.run.features.glob("shard-*.h5"):
            if path.name not in named:
                path.unlink()
        remove_temporaries(self.run.features)  # of a worker that was killed while this stage ran

    def kept(self) -> tuple[int, int, int]:
        """How many images lie in finished shards that an interrupted run has left, of how many that are not in the committed cache; and
        the number of these shards."""
        known = self.spec()
        total = usable_images(self.run.images)
        named: set[str] = set()
        # Without a record the next run looks at every shard again, also at those that an index means.
        if StageRecord.read(self.run.record(self.name)) is not None:
            with suppress(StageError):
                cache = FeatureCache(self.run.features)
                named = set(cache.shards())
                if cache.spec == known:
                    total = total.filter(pc.invert(pc.is_in(total.column("key"), cache.keys())))
        done = shards = 0
        for path in self.run.features.glob("shard-*.h5"):
            if path.name not in named:
                with suppress(ShardError):
                    shard = Shard(path)
                    if shard.spec == known:
                        done, shards = done + len(shard.keys), shards + 1
        return done, total.num_rows, shards

    def units_of(self, shards: Sequence[str], folder: Path) -> list[ShardUnit]:
        """The units that made committed shards, as far as tables and shards still tell, with their results below `folder`.

        On a GPU, which images go through the network together is part of the numbers, and an image that failed held a place: it is put
        back where its key belongs. A unit with another digest than its shard's was put together otherwise, and may be a rounding off.
        """
        images = self.images()
        keys = [image.key for image in images]
        s, arithmetic = self.settings, self.arithmetic
        units = []
        for name in shards:
            shard = Shard(self.run.features / name)
            there = set(shard.keys)
            span = (
                slice(bisect_left(keys, shard.keys[0]), bisect_right(keys, shard.keys[-1]))
                if shard.keys
                else slice(0)
            )
            only = tuple(image for image in images[span] if image.key in there)
            stem = name.removeprefix("shard-").removesuffix(".h5")
            target = Target(shard.spec, s.weights, str(folder), stem)
            unit = ShardUnit((target,), arithmetic, only)
            whole = replace(unit, images=tuple(images[span]))
            units.append(whole if whole.digest(target) == shard.unit else unit)
        return units

    def images(self) -> Made[ImageUnit]:
        """Every usable image with the boxes that are its views."""
        return planned_images(self.run.images, self.run.detections, self.objects)

    def plan(self) -> ViewPlan:
        """Return all that is needed to see what this stage sees, without its cache."""
        return ViewPlan(self.images(), self.spec(), self.settings.weights)

    def spec(self) -> FeatureSpec:
        """What the features are that this stage makes."""
        s = self.settings
        return replace(PYRAMID, side=s.pooled).spec(
            s.backbone,
            backbone_info(s.backbone).transform(s.size),
            weights=self.weights().get("backbone", "none"),
            objects=self.objects,
            dtype=s.dtype,
            precision=self.arithmetic.precision,
        )

    def _reusable(
        self, spec: FeatureSpec, images: Sequence[ImageUnit]
    ) -> tuple[dict[str, IndexRow], set[str]]:
        """The committed rows that this run would compute again to the same values, by image key; and the shards whose names are taken.

        A committed index stays true until the next one replaces it: no new shard bears the name of one that it means.
        """
        try:
            old_spec, rows = read_index(self.run.features)
        except StageError:
            return {}, set()
        taken = {row.shard for row in rows}
        if old_spec != spec:
            return {}, taken
        record = StageRecord.read(self.run.record(self.name))
        if (
            record is None
            or record.schema_version != self.schema_version
            or record.parameters != self.parameters()
        ):
            # Killed between index and record: the same units come again under the same names, and find their shards there.
            return {}, set()
        wanted = {image.key: image.inputs for image in images}
        sound: dict[str, Shard] = {}
        for name in taken:
            try:
                shard = Shard(self.run.features / name)
            except ShardError:
                continue
            if not shard.damaged_rows():
                sound[name] = shard
        return {
            row.image_key: row
            for row in rows
            if wanted.get(row.image_key) == row.inputs and row.shard in sound
        }, taken

    def _units(self, spec: FeatureSpec, images: Sequence[ImageUnit], taken: set[str]) -> Made[ShardUnit]:
        """Units of whole shards under names that are not taken."""
        s, arithmetic = self.settings, self.arithmetic
        count = math.ceil(len(images) / s.shard_rows)
        free = [number for number in range(count + len(taken)) if f"shard-{number:05d}.h5" not in taken]

        def make(i: int) -> ShardUnit:
            group = tuple(images[i * s.shard_rows : (i + 1) * s.shard_rows])
            target = Target(spec, s.weights, str(self.run.features), f"{free[i]:05d}")
            return ShardUnit((target,), arithmetic, group)

        return Made(count, make)


def _extract_shard(unit: ShardUnit) -> list[ShardResult]:
    """Imported by who works, not by who plans."""
    from .work import extract_shard

    return extract_shard(unit)
