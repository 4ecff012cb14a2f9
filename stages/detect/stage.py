"""The detect stage: the top objects of every image, as rows of detections.parquet and, for people to look at, as crops.

A unit of work is a chunk of images; a finished chunk is kept as two small tables until all are there, so that a killed job goes on
where it was.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...manifests.errors import StageError
from ...manifests.files import remove_temporaries
from ...manifests.fingerprint import digest_json
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import DETECTIONS, IMAGES, OUTCOMES
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
from ..base.stage import Stage
from ..base.tools import SILENT, Counts, Tools, UnitFailure
from ..vision.weights import weights_of
from .settings import DetectSettings
from .unit import ChunkUnit, chunk_tables

__all__ = ["Detect"]


@dataclass(frozen=True)
class Detect(Stage):
    """images.parquet to detections.parquet and crops/. See Stage for the contract."""

    run: RunFolder
    settings: DetectSettings

    name = "detect"
    schema_version = 1

    def parameters(self) -> dict[str, Any]:
        s = self.settings
        return {
            "detector": s.detector,
            "min_score": s.min_score,
            "objects": s.objects,
            **Arithmetic.of(s.device, s.precision).identity,
        }

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        return {"images": table_digest(self.run.images, IMAGES, "prepare")}

    def weights(self) -> dict[str, str]:
        if not any_usable(self.run.images):
            return {}  # nothing to detect: a text-only run needs no weights file
        return {"detector": weights_of(self.settings.detector, self.settings.weights).digest()}

    def outputs(self) -> dict[str, str]:
        tables = {
            "detections": (self.run.detections, DETECTIONS),
            "outcomes": (self.run.outcomes(self.name), OUTCOMES),
        }
        return sound_digests(tables)

    def compute(self, tools: Tools) -> Counts:
        if remark := Arithmetic.of(self.settings.device, self.settings.precision).remark:
            tools.say(remark)
        images = self._images()
        old_detections, old_outcomes = self._reusable(images)
        kept = set(old_outcomes.column("image_key").to_pylist())
        todo = [image for image in images if image[0] not in kept] if kept else images
        work = self._work()
        work.mkdir(parents=True, exist_ok=True)
        remove_temporaries(work)
        remove_temporaries(self.run.crops)
        remove_temporaries(self.run.path, self.run.detections.name)
        bar = tools.bar(len(todo), "detect", "image")
        detections, outcomes = [old_detections], [old_outcomes]
        for unit, result in tools.map(_detect_chunk, self._units(work, todo)):
            if isinstance(result, UnitFailure):
                failures = [
                    {"image_key": key, "status": "failed", "reason": result.reason} for key, _ in unit.images
                ]
                outcomes.append(table_of(OUTCOMES, failures))
            else:
                detections_path, outcomes_path = chunk_tables(result)
                detections.append(read_table(detections_path, DETECTIONS))
                outcomes.append(read_table(outcomes_path, OUTCOMES))
            bar.update(len(unit))
        bar.close()
        all_detections = pa.concat_tables(detections).sort_by(
            [("image_key", "ascending"), ("rank", "ascending")]
        )
        all_outcomes = pa.concat_tables(outcomes).sort_by("image_key")
        write_table(self.run.detections, all_detections)
        write_table(self.run.outcomes(self.name), all_outcomes)
        failed = all_outcomes.column("status").to_pylist().count("failed")
        return Counts(
            "images",
            done=len(images) - len(kept) - failed,
            skipped=len(kept),
            failed=failed,
            details={"objects": all_detections.num_rows, "output": str(self.run.detections)},
        )

    def finish(self) -> None:
        shutil.rmtree(self.run.work(self.name), ignore_errors=True)

    def kept(self) -> tuple[int, int]:
        """How many images of finished chunks an interrupted run has left, of how many that the next one has to go through."""
        there = {path.name for path in self._work().glob("*.outcomes.parquet")}
        if not there:
            return 0, 0
        images = self._images()
        kept = set(self._reusable(images)[1].column("image_key").to_pylist())
        todo = [image for image in images if image[0] not in kept]
        units = self._units(self._work(), todo)
        return sum(len(unit) for unit in units if chunk_tables(unit.stem)[1].name in there), len(todo)

    def all_units(self, work: Path) -> list[ChunkUnit]:
        """The chunks of every usable image, whatever is done of them, with their tables below `work` and without crops."""
        return [replace(unit, crops=None) for unit in self._units(work, self._images())]

    def _images(self) -> Made[tuple[str, str]]:
        """(key, path) of every usable image, in the order of the keys."""
        images = usable_images(self.run.images)
        keys, paths = images.column("key"), images.column("path")
        return Made(len(keys), lambda i: (keys[i].as_py(), paths[i].as_py()))

    def _work(self) -> Path:
        """Parts of another detector never mix with these: the folder bears the digest of all that decides a box."""
        decides = {
            "schema_version": self.schema_version,
            "parameters": self.parameters(),
            "weights": self.weights(),
        }
        return self.run.work(self.name) / digest_json(decides)[:16]

    def _units(self, work: Path, images: Sequence[tuple[str, str]]) -> Made[ChunkUnit]:
        s = self.settings
        arithmetic = Arithmetic.of(s.device, s.precision)
        crops = str(self.run.crops) if s.crops else None

        def make(i: int) -> ChunkUnit:
            group = tuple(images[i * s.chunk : (i + 1) * s.chunk])
            return ChunkUnit(
                str(work), crops, s.detector, s.weights, s.objects, s.min_score, arithmetic, group
            )

        return Made(math.ceil(len(images) / s.chunk), make)

    def _reusable(self, images: Sequence[tuple[str, str]]) -> tuple[pa.Table, pa.Table]:
        """The committed detections and outcomes of images that are still wanted, where nothing but the images has changed."""
        nothing = table_of(DETECTIONS, ()), table_of(OUTCOMES, ())
        record = StageRecord.read(self.run.record(self.name))
        now = (self.schema_version, self.parameters(), self.weights())
        if record is None or (record.schema_version, record.parameters, record.weights) != now:
            return nothing
        try:
            detections = read_table(self.run.detections, DETECTIONS)
            outcomes = read_table(self.run.outcomes(self.name), OUTCOMES)
        except StageError:
            return nothing
        if record.outputs != self.outputs():
            return nothing
        good = {row["image_key"] for row in outcomes.to_pylist() if row["status"] == "done"} & {
            key for key, _ in images
        }
        keys = pa.array(sorted(good), pa.string())
        return tuple(
            table.filter(pc.is_in(table.column("image_key"), keys)) for table in (detections, outcomes)
        )


def _detect_chunk(unit: ChunkUnit) -> Path:
    """Imported by who works, not by who plans."""
    from .work import detect_chunk

    return detect_chunk(unit)
