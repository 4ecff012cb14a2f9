"""The extract stage: images and boxes in, shards of pooled pyramids out.

A unit of work is a shard of each set. The tables, not the cluster, decide which images make a shard and which
of them go through the network together. So the numbers do not depend on the number of workers or on how often
the job was killed.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pyarrow.compute as pc

from ...cache.integrity import find_damage
from ...cache.reader import FeatureCache, IndexRow, read_index, write_index
from ...cache.shards import SCHEMA_VERSION, Shard, ShardError
from ...cache.spec import SCENE, FeatureSpec
from ...manifests.errors import StageError
from ...manifests.files import check_folder, remove_file, remove_temporaries
from ...manifests.record import StageRecord
from ...manifests.run import DEFAULT_SET, RunFolder, extract_name
from ...manifests.schemas import DETECTIONS, IMAGES, OUTCOMES, SCENES
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
from ..base.settings import local_files
from ..base.stage import Progress, Rerun, Stage, given_settings, sample_of
from ..base.tools import SILENT, Counts, Tools, UnitFailure
from ..vision.backbones import BackboneInfo, backbone_info
from ..vision.outcomes import Failure, Failures, outcome
from ..vision.plan import ImageUnit, ViewPlan, planned_images, scene_images
from ..vision.sets import PYRAMID, FeatureSet
from ..vision.weights import digest_of
from .comparison import Apart, feature_distance, feature_probes
from .settings import ExtractSettings
from .unit import ShardResult, ShardUnit, Target

__all__ = ["Extract", "planned_units"]


@dataclass(frozen=True)
class Extract(Stage):
    """From images.parquet and detections.parquet to features/<set>/. See Stage for the contract.

    A set whose views are the objects of scene graphs reads scenes.parquet for detections.parquet. objects:
    the most that an image has of either.
    """

    run: RunFolder
    settings: ExtractSettings
    objects: int
    feature_set: FeatureSet = PYRAMID

    kind = "extract"
    files = ("features", "outcomes")
    schema_version = SCHEMA_VERSION
    optional = True

    @property
    def name(self) -> str:
        return extract_name(self.feature_set.name)

    def parameters(self) -> dict[str, Any]:
        s = self.settings
        found = {
            "backbone": self._info.name,
            "dtype": s.dtype,
            "objects": self.objects,
            "pooled": self._set.side,
            **self.arithmetic.identity,
            "transform": str(self._info.transform(s.size)),
        }
        if (self._set.levels, self._set.views) != (PYRAMID.levels, PYRAMID.views):
            found |= {"levels": list(self._set.levels), "views": self._set.views}
        return found

    @property
    def _set(self) -> FeatureSet:
        """Return the feature set; the side of the built-in pyramid is a setting."""
        if self.feature_set == PYRAMID:
            return replace(PYRAMID, side=self.settings.pooled)
        return self.feature_set

    @property
    def arithmetic(self) -> Arithmetic:
        """Return how the backbone computes: one that is not fused, on torch's own kernels."""
        s, record = self.settings, StageRecord.known(self.run.record(self.name))
        if record is not None and record.parameters.get("backbone") != self._info.name:
            record = None  # another backbone may have computed otherwise
        arithmetic = Arithmetic.recorded(s.device, s.precision, record)
        return arithmetic if self._info.fused else arithmetic.plain(s.precision)

    @property
    def computed(self) -> str:
        """Return how a backbone that is not fused computes, for the summary."""
        return f"in {self.arithmetic.precision} by torch's own kernels; only ResNets of torchvision are fused"

    @property
    def _info(self) -> BackboneInfo:
        return backbone_info(self.settings.backbone, self.settings.weights)

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        images = {"images": table_digest(self.run.images, IMAGES, "prepare")}
        if self._of_scenes:
            return {**images, "scenes": table_digest(self.run.scenes, SCENES, "scenes")}
        return {**images, "detections": table_digest(self.run.detections, DETECTIONS, "detect")}

    @property
    def _of_scenes(self) -> bool:
        """Return whether its views are the objects of scene graphs."""
        return self.feature_set.views == SCENE

    def weights(self) -> dict[str, str]:
        if not any_usable(self.run.images):
            return {}  # nothing to extract: a text-only run needs no weights file
        return {"backbone": digest_of("backbone", self.settings.backbone, self.settings.weights)}

    def outputs(self) -> dict[str, str]:
        """Return the digest of what the index promises, or none where a shard is not the promised one."""
        found = sound_digests({"outcomes": (self.run.outcomes(self.name), OUTCOMES)})
        try:
            cache = FeatureCache(self.place)
            cache.check()
            found["features"] = cache.digest()
        except StageError:
            return found
        return found

    def output_path(self, output: str) -> Path:
        return self.place / "index.parquet" if output == "features" else self.run.outcomes(self.name)

    @property
    def place(self) -> Path:
        return self.run.features(self.feature_set.name)

    def before(self) -> tuple[str, ...]:
        return ("prepare", "scenes" if self._of_scenes else "detect")

    def given(self) -> dict[str, Any]:
        return given_settings(self.settings, objects=self.objects)

    def sources(self) -> Iterator[Path]:
        yield from local_files(self.settings).values()

    def command(self) -> str:
        name = self.feature_set.name
        return super().command() + ("" if name == DEFAULT_SET else f" --features {name}")

    def damage(self) -> list[tuple[Path, str]]:
        return [(item.path, item.reason) for item in find_damage(self.place)]

    def compute(self, causes: StageRecord, tools: Tools) -> Counts:
        return self.compute_together([(self, causes)], tools)[0]

    @classmethod
    def compute_together(cls, works: Sequence[tuple[Self, StageRecord]], tools: Tools) -> list[Counts]:
        """Make several feature sets in one pass over the images that all of them lack.

        The stages are of one run and differ only in their set. Each set gets what a pass for it alone would
        make.
        """
        for stage, _ in works:
            check_folder(stage.place)
        first = works[0][0]
        if (remark := first.arithmetic.remark) and first._info.fused:
            tools.say(remark)
        # Sets of other boxes are other passes: an image is its boxes, all of which go through together.
        planned = {stage._of_scenes: stage.images() for stage, _ in works}
        begun = []
        for stage, causes in works:
            images = planned[stage._of_scenes]
            failures = Failures(stage.name, len(images), all_may_fail=tools.all_may_fail)
            begun.append(_Begun(stage, images, *stage._reusable(images, causes), failures))
        passes: dict[tuple[bool, frozenset[str]], list[_Begun]] = {}
        for one in begun:
            remove_temporaries(one.stage.place)
            passes.setdefault((one.stage._of_scenes, frozenset(one.kept)), []).append(one)
        for (of_scenes, kept), together in passes.items():
            images = planned[of_scenes]
            todo = [image for image in images if image.key not in kept] if kept else images
            _make(together, todo, tools)
        for one in begun:
            one.failures.check()
        return [one.commit() for one in begun]

    def finish(self) -> None:
        """Remove shards that the index does not name: they are leftovers of older features."""
        named = set(FeatureCache(self.place).shards())
        for path in self.place.glob("shard-*.h5"):
            if path.name not in named:
                remove_file(path)
        remove_temporaries(self.place)  # of a worker that was killed while this stage ran

    def progress(self, causes: StageRecord) -> Progress | None:
        """Return how many images are in finished shards of an interrupted run.

        They are counted among the images that are not in the committed cache. The details have the number of
        shards.
        """
        known = self.spec()
        total = usable_images(self.run.images)
        named: set[str] = set()
        # Without a record the next run checks every shard again, even those that an index names.
        if StageRecord.read(self.run.record(self.name)) is not None:
            with suppress(StageError):
                cache = FeatureCache(self.place)
                named = set(cache.shards())
                if cache.spec == known:
                    total = total.filter(pc.invert(pc.is_in(total.column("key"), cache.keys())))
        done = shards = 0
        for path in self.place.glob("shard-*.h5"):
            if path.name not in named:
                with suppress(ShardError):
                    shard = Shard(path)
                    if shard.spec == known:
                        done, shards = done + len(shard.keys), shards + 1
        return Progress(done, total.num_rows, "images", {"new shards": shards}) if done else None

    def again(
        self, record: StageRecord, share: float, elsewhere: bool, scratch: RunFolder, tools: Tools
    ) -> Rerun:
        folder = scratch.features(self.feature_set.name)
        folder.mkdir(parents=True)
        units = self._units_of(sample_of(FeatureCache(self.place).shards(), share), folder)
        apart = Apart(self.name, str(record.parameters["precision"]))
        for unit, result in tools.map(_extract_shard, units):
            if isinstance(result, UnitFailure):
                raise StageError(f"{len(unit)} images could not be computed again: {result.reason}")
            (target,) = unit.targets
            old, new = Shard(self.place / target.path.name), Shard(target.path)
            if unit.digest(target) != old.unit:
                apart.remarks.append(
                    f"{target.path.name} was put together differently; another batch may round differently"
                )
            if missed := sum(failure.passing for _, failure in result[0].failed):
                raise StageError(f"{missed} of {len(unit)} images cannot be read now")
            apart.add(old, new)
        return apart.rerun()

    def probes(self) -> dict[str, list[dict[str, Any]]]:
        return {"features": feature_probes(self.place)}

    def distance(self, output: str, probes: Sequence[Mapping[str, Any]]) -> tuple[bool, str] | None:
        return feature_distance(probes, self.place) if output == "features" else None

    def _units_of(self, shards: Sequence[str], folder: Path) -> list[ShardUnit]:
        """Return the units that made committed shards, with their results below `folder`.

        They are rebuilt as far as tables and shards allow. On a GPU, the images that go through the network
        together affect the numbers, and an image that failed took a place: it is put back where its key
        belongs. A unit whose digest differs from its shard's was put together differently, and its numbers
        may differ by rounding.
        """
        images = self.images()
        keys = [image.key for image in images]
        s, arithmetic = self.settings, self.arithmetic
        units = []
        for name in shards:
            shard = Shard(self.place / name)
            there = set(shard.keys)
            span = (
                slice(bisect_left(keys, shard.keys[0]), bisect_right(keys, shard.keys[-1]))
                if shard.keys
                else slice(0)
            )
            only = tuple(image for image in images[span] if image.key in there)
            stem = name.removeprefix("shard-").removesuffix(".h5")
            target = Target(shard.spec, s.weights, str(folder), stem, s.backbone)
            unit = ShardUnit((target,), arithmetic, only)
            whole = replace(unit, images=tuple(images[span]))
            units.append(whole if whole.digest(target) == shard.unit else unit)
        return units

    def images(self) -> Made[ImageUnit]:
        """Return every usable image with the boxes that are its views."""
        if self._of_scenes:
            return scene_images(self.run.images, self.run.scenes, self.objects)
        return planned_images(self.run.images, self.run.detections, self.objects)

    def plan(self) -> ViewPlan:
        """Return everything that is needed to see what this stage sees, without its cache."""
        return ViewPlan(self.images(), self.spec(), self.settings.weights, self.settings.backbone)

    def spec(self) -> FeatureSpec:
        """Return the spec of the features that this stage makes."""
        s = self.settings
        return self._set.spec(
            self._info,
            s.size,
            weights=self.weights().get("backbone", "none"),
            objects=self.objects,
            dtype=s.dtype,
            precision=self.arithmetic.precision,
        )

    def _reusable(
        self, images: Sequence[ImageUnit], causes: StageRecord
    ) -> tuple[dict[str, IndexRow], set[str]]:
        """Return, by image key, the committed rows that this run would compute to the same values again.

        Also return the shards whose names are taken. A committed index stays true until the next one replaces
        it: no new shard gets a name that the index contains.
        """
        try:
            old_spec, rows = read_index(self.place)
        except StageError:
            return {}, set()
        taken = {row.shard for row in rows}
        if old_spec != self.spec():
            return {}, taken
        record = StageRecord.read(self.run.record(self.name))
        if (
            record is None
            or record.schema_version != causes.schema_version
            or record.parameters != causes.parameters
        ):
            # Killed between index and record: the same units come again under the same names and find their
            # shards.
            return {}, set()
        wanted = {image.key: image.inputs for image in images}
        sound: dict[str, dict[str, tuple[int, int]]] = {}  # (row, checksum) by image key, by shard
        for name in taken:
            try:
                shard = Shard(self.place / name)
            except ShardError:
                continue
            if shard.spec == old_spec and not shard.damaged_rows():
                sound[name] = dict(zip(shard.keys, enumerate(shard.checksums.tolist()), strict=True))
        return {
            row.image_key: row
            for row in rows
            if wanted.get(row.image_key) == row.inputs
            # A sound shard may lie in the place of another.
            and sound.get(row.shard, {}).get(row.image_key) == (row.row, row.checksum)
        }, taken


@dataclass
class _Begun:
    """A feature set in the making: what is kept of it, the taken names of shards, and what has arrived."""

    stage: Extract
    images: Sequence[ImageUnit]
    kept: dict[str, IndexRow]
    taken: set[str]
    failures: Failures
    rows: list[IndexRow] = field(default_factory=list)

    def commit(self) -> Counts:
        """Write the outcomes and the index. From then on the set has exactly these rows."""
        stage, rows = self.stage, [*self.kept.values(), *self.rows]
        outcomes = [*(outcome(row.image_key) for row in rows), *self.failures.rows()]
        write_table(
            stage.run.outcomes(stage.name),
            table_of(OUTCOMES, sorted(outcomes, key=lambda row: str(row["image_key"]))),
        )
        write_index(stage.place, stage.spec(), rows)
        made = {row.image_key for row in self.rows}
        views = sum(
            stage.feature_set.views_of(len(image.boxes), stage.objects)
            for image in (self.images if made else ())
            if image.key in made
        )
        return Counts(
            "images",
            done=len(self.rows),
            skipped=len(self.kept),
            failed=len(self.failures),
            details={
                "views": views,
                **self.failures.details(stage.run.outcomes(stage.name)),
                **({} if stage._info.fused else {"computed": stage.computed}),
            },
        )


def _make(together: Sequence[_Begun], images: Sequence[ImageUnit], tools: Tools) -> None:
    """Make the shards of `images` of several sets in one pass."""
    units = planned_units([(one.stage, one.taken) for one in together], images)
    bar = tools.bar(len(images), "extract", "image")
    for unit, results in tools.map(_extract_shard, units):
        for i, one in enumerate(together):
            if isinstance(results, UnitFailure):
                failed = tuple((image.key, Failure(results.reason)) for image in unit.images)
            else:
                one.rows.extend(results[i].rows)
                failed = results[i].failed
            paths = {image.key: image.path for image in unit.images} if failed else {}
            for key, failure in failed:
                one.failures.add(key, failure, paths[key])
        bar.update(len(unit))
    bar.close()


def planned_units(stages: Sequence[tuple[Extract, set[str]]], images: Sequence[ImageUnit]) -> Made[ShardUnit]:
    """Return units of whole shards, one shard for every stage's set, under names that are not taken.

    stages: of one run and with the same settings, each with the taken names in its folder.
    """
    first = stages[0][0]
    rows, arithmetic = first.settings.shard_rows, first.arithmetic
    count = math.ceil(len(images) / rows)

    def numbers(taken: set[str]) -> list[int]:
        every = range(count + len(taken))
        return [number for number in every if f"shard-{number:05d}.h5" not in taken]

    targets = [(stage.spec(), stage.settings, str(stage.place), numbers(taken)) for stage, taken in stages]

    def make(i: int) -> ShardUnit:
        group = tuple(images[i * rows : (i + 1) * rows])
        made = (
            Target(spec, s.weights, folder, f"{free[i]:05d}", s.backbone) for spec, s, folder, free in targets
        )
        return ShardUnit(tuple(made), arithmetic, group)

    return Made(count, make)


def _extract_shard(unit: ShardUnit) -> list[ShardResult]:
    """Run `extract_shard`, imported lazily: planning must not load torch."""
    from .work import extract_shard

    return extract_shard(unit)
