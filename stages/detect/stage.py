"""The detect stage: the top objects of every image, as rows of a table and, for people to look at, as crops.

A unit of work is a chunk of images. A finished chunk is kept as two small tables until all chunks are
finished, so that a killed job continues where it was.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from ...manifests.errors import StageError
from ...manifests.files import make_folder, remove_temporaries
from ...manifests.fingerprint import digest_json
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import DETECTIONS, DONE, IMAGES, MISSED, OUTCOMES
from ...manifests.tables import (
    any_usable,
    read_table,
    sound_digests,
    table_digest,
    table_of,
    usable_images,
    write_table,
)
from ..base.ahead import Made
from ..base.arithmetic import Arithmetic
from ..base.settings import HUB, local_files
from ..base.stage import Progress, Rerun, Stage, given_settings, sample_of
from ..base.tools import SILENT, Counts, Tools, UnitFailure
from ..vision.detectors import is_fused
from ..vision.hub import HubModel
from ..vision.outcomes import Failure, Failures
from ..vision.weights import digest_of
from .comparison import box_distance, box_probes, compare_detections
from .settings import DetectSettings
from .unit import ChunkUnit, chunk_tables

__all__ = ["Detect", "nothing_in"]

_PLAIN = "in fp32 by torch's own kernels; only Faster R-CNNs are fused"


@dataclass(frozen=True)
class Detect(Stage):
    """From images.parquet to detections.parquet and crops/. See Stage for the contract."""

    run: RunFolder
    settings: DetectSettings

    kind = "detect"
    files: ClassVar[tuple[str, ...]] = ("detections", "outcomes")
    schema_version = 1
    optional = True

    def parameters(self) -> dict[str, Any]:
        s = self.settings
        return {
            **self._detector,
            "min_score": s.min_score,
            "objects": s.objects,
            **self.arithmetic.identity,
        }

    @property
    def arithmetic(self) -> Arithmetic:
        """Return how the detector computes: one that is not fused, on torch's own kernels."""
        s, record = self.settings, StageRecord.known(self.run.record(self.name))
        fused = is_fused(s.detector)
        if record is not None and is_fused(str(record.parameters.get("detector"))) != fused:
            record = None  # the other detector computed otherwise
        arithmetic = Arithmetic.recorded(s.device, s.precision, record)
        return arithmetic if fused else arithmetic.plain(s.precision)

    @property
    def _detector(self) -> dict[str, str]:
        """Return the detector's name, or the type of one of the hub: where its folder lies is no cause."""
        s = self.settings
        if not s.detector.startswith(HUB):
            return {"detector": s.detector}
        if not self._looks:
            return {}  # its files may not be here
        return {"detector": HUB + HubModel(s.detector, s.weights, "detector").kind()}

    @property
    def _looks(self) -> bool:
        """Return whether there is anything to detect: otherwise no weights are needed."""
        return bool(self.settings.objects) and any_usable(self.run.images)

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        return {"images": table_digest(self.run.images, IMAGES, "prepare")}

    def weights(self) -> dict[str, str]:
        if not self._looks:
            return {}
        return {"detector": digest_of("detector", self.settings.detector, self.settings.weights)}

    def outputs(self) -> dict[str, str]:
        tables = {
            "detections": (self.run.detections, DETECTIONS),
            "outcomes": (self.run.outcomes(self.name), OUTCOMES),
        }
        return sound_digests(tables)

    def output_path(self, output: str) -> Path:
        return self.run.detections if output == "detections" else self.run.outcomes(self.name)

    @property
    def place(self) -> Path:
        return self.run.detections

    def before(self) -> tuple[str, ...]:
        return ("prepare",)

    def given(self) -> dict[str, Any]:
        return given_settings(self.settings)

    def sources(self) -> Iterator[Path]:
        yield from local_files(self.settings).values()

    def compute(self, causes: StageRecord, tools: Tools) -> Counts:
        fused = is_fused(self.settings.detector)
        if fused and (remark := self.arithmetic.remark):
            tools.say(remark)
        images = self._images()
        old_detections, old_outcomes = self._reusable(causes, images)
        kept = set(old_outcomes.column("image_key").to_pylist())
        todo: Sequence[tuple[str, str]] = images
        if kept:
            todo = [image for image in images if image[0] not in kept]
        work = self._work(causes)
        make_folder(work)
        remove_temporaries(work)
        remove_temporaries(self.run.crops)
        remove_temporaries(self.run.path, self.run.detections.name)
        detections, outcomes = [old_detections], [old_outcomes]
        failures = Failures(self.name, len(images), all_may_fail=tools.all_may_fail)
        if not self.settings.objects:
            outcomes.append(nothing_in(todo))
            todo = []
        bar = tools.bar(len(todo), "detect", "image")
        for unit, result in tools.map(_detect_chunk, self._units(work, todo)):
            if isinstance(result, UnitFailure):
                for key, path in unit.images:
                    failures.add(key, Failure(result.reason), path)
            else:
                detections_path, outcomes_path = chunk_tables(result)
                detections.append(read_table(detections_path, DETECTIONS))
                outcomes.append(_without(failures, read_table(outcomes_path, OUTCOMES), dict(unit.images)))
            bar.update(len(unit))
        bar.close()
        failures.check()
        outcomes.append(table_of(OUTCOMES, failures.rows()))
        all_detections = pa.concat_tables(detections).sort_by(
            [("image_key", "ascending"), ("rank", "ascending")]
        )
        all_outcomes = pa.concat_tables(outcomes).sort_by("image_key")
        write_table(self.run.detections, all_detections)
        write_table(self.run.outcomes(self.name), all_outcomes)
        return Counts(
            "images",
            done=len(images) - len(kept) - len(failures),
            skipped=len(kept),
            failed=len(failures),
            details={
                "objects": all_detections.num_rows,
                **failures.details(self.run.outcomes(self.name)),
                **({} if fused else {"computed": _PLAIN}),
            },
        )

    def progress(self, causes: StageRecord) -> Progress | None:
        """Return how many images of finished chunks there are, and how many the next run covers."""
        there = {path.name for path in self._work(causes).glob("*.outcomes.parquet")}
        if not there:
            return None
        images = self._images()
        kept = set(self._reusable(causes, images)[1].column("image_key").to_pylist())
        todo = [image for image in images if image[0] not in kept]
        units = self._units(self._work(causes), todo)
        done = sum(len(unit) for unit in units if chunk_tables(unit.stem)[1].name in there)
        return Progress(done, len(todo), "images") if done else None

    def again(
        self, record: StageRecord, share: float, elsewhere: bool, scratch: RunFolder, tools: Tools
    ) -> Rerun:
        work = scratch.work(self.name)
        work.mkdir(parents=True)
        units = sample_of(self.units(work), share)
        found, outcomes = [table_of(DETECTIONS, ())], [table_of(OUTCOMES, ())]
        if not self.settings.objects:
            outcomes += [nothing_in(unit.images) for unit in units]
        for unit, result in tools.map(_detect_chunk, units if self.settings.objects else []):
            if isinstance(result, UnitFailure):
                raise StageError(f"{len(unit)} images could not be computed again: {result.reason}")
            tables = chunk_tables(result)
            found.append(read_table(tables[0], DETECTIONS))
            outcomes.append(read_table(tables[1], OUTCOMES))
        keys = pa.array([key for unit in units for key, _ in unit.images], pa.string())
        old = (
            table.filter(pc.is_in(table.column("image_key"), keys))
            for table in (
                read_table(self.run.detections, DETECTIONS),
                read_table(self.run.outcomes(self.name), OUTCOMES),
            )
        )
        new = pa.concat_tables(found), pa.concat_tables(outcomes)
        if missed := new[1].column("status").to_pylist().count(MISSED):
            raise StageError(f"{missed} of {len(keys)} images cannot be read now")
        precision = str(record.parameters["precision"])
        return compare_detections(self.name, tuple(old), new, precision, f"{len(keys)} images")

    def probes(self) -> dict[str, list[dict[str, Any]]]:
        return {"detections": box_probes(self.run.detections)}

    def distance(self, output: str, probes: Sequence[Mapping[str, Any]]) -> tuple[bool, str] | None:
        return box_distance(probes, self.run.detections) if output == "detections" else None

    def units(self, work: Path) -> list[ChunkUnit]:
        """Return the chunks of every usable image, finished or not, with tables below `work` and no crops."""
        return [replace(unit, crops=None) for unit in self._units(work, self._images())]

    def _images(self) -> Made[tuple[str, str]]:
        """Return (key, path) of every usable image, ordered by key."""
        images = usable_images(self.run.images)
        keys, paths = images.column("key"), images.column("path")
        return Made(len(keys), lambda i: (keys[i].as_py(), paths[i].as_py()))

    def _work(self, causes: StageRecord) -> Path:
        """Return the folder of finished chunks.

        Its name is the digest of everything that decides a box, so that parts of another detector never mix
        with these.
        """
        decides = {
            "schema_version": causes.schema_version,
            "parameters": causes.parameters,
            "weights": causes.weights,
        }
        return self.run.work(self.name) / digest_json(decides)[:16]

    def _units(self, work: Path, images: Sequence[tuple[str, str]]) -> Made[ChunkUnit]:
        s = self.settings
        arithmetic = self.arithmetic
        crops = str(self.run.crops) if s.crops else None

        def make(i: int) -> ChunkUnit:
            group = tuple(images[i * s.chunk : (i + 1) * s.chunk])
            return ChunkUnit(
                str(work), crops, s.detector, s.weights, s.objects, s.min_score, arithmetic, group
            )

        return Made(math.ceil(len(images) / s.chunk), make)

    def _reusable(self, causes: StageRecord, images: Sequence[tuple[str, str]]) -> tuple[pa.Table, pa.Table]:
        """Return the committed detections and outcomes of images that are still wanted.

        They can be reused only if nothing but the images has changed.
        """
        nothing = table_of(DETECTIONS, ()), table_of(OUTCOMES, ())
        record = StageRecord.read(self.run.record(self.name))
        now = (causes.schema_version, causes.parameters, causes.weights)
        if record is None or (record.schema_version, record.parameters, record.weights) != now:
            return nothing
        try:
            detections = read_table(self.run.detections, DETECTIONS)
            outcomes = read_table(self.run.outcomes(self.name), OUTCOMES)
        except StageError:
            return nothing
        if record.outputs != self.outputs():
            return nothing
        good = {row["image_key"] for row in outcomes.to_pylist() if row["status"] == DONE} & {
            key for key, _ in images
        }
        keys = pa.array(sorted(good), pa.string())
        return tuple(
            table.filter(pc.is_in(table.column("image_key"), keys)) for table in (detections, outcomes)
        )


def _without(failures: Failures, outcomes: pa.Table, paths: Mapping[str, str]) -> pa.Table:
    """Add the images of a chunk that have no result to `failures`, and return the rows of the others."""
    done = pc.equal(outcomes.column("status"), DONE)
    for row in outcomes.filter(pc.invert(done)).to_pylist():
        failure = Failure(row["reason"], passing=row["status"] == MISSED)
        failures.add(row["image_key"], failure, paths[row["image_key"]])
    return outcomes.filter(done)


def nothing_in(images: Iterable[tuple[str, str]]) -> pa.Table:
    """Return the outcomes of images in which no object is looked for: they are not even opened."""
    return table_of(OUTCOMES, [{"image_key": key, "status": DONE, "reason": None} for key, _ in images])


def _detect_chunk(unit: ChunkUnit) -> Path:
    """Run `detect_chunk`, imported lazily: planning must not load torch."""
    from .work import detect_chunk

    return detect_chunk(unit)
