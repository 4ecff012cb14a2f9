"""The detect stage without a detector: the user's file has the boxes that another one found."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import DETECTIONS, IMAGES, OUTCOMES, PROBLEMS, SAMPLES
from ...manifests.tables import read_table, sound_digests, table_digest, table_of, write_table
from ..base.stage import Progress, Rerun, problem_reasons
from ..base.tools import SILENT, Counts, Tools
from ..vision.known import KnownImages
from .boxes import box_files, boxes_digest, read_boxes
from .comparison import compare_detections
from .settings import DetectSettings
from .stage import Detect, nothing_in

__all__ = ["DetectGiven", "detect_stage"]

_FILE = "file"
"""What records call the detector."""


def detect_stage(run: RunFolder, settings: DetectSettings) -> Detect:
    """Return the stage that makes the detections of a run."""
    return DetectGiven(run, settings) if settings.boxes else Detect(run, settings)


@dataclass(frozen=True)
class DetectGiven(Detect):
    """From images.parquet and a file of boxes to detections.parquet. See Stage for the contract.

    No image is opened, and no crops are written.
    """

    files: ClassVar[tuple[str, ...]] = ("detections", "outcomes", "problems")

    def parameters(self) -> dict[str, Any]:
        s = self.settings
        return {"detector": _FILE, "min_score": s.min_score, "objects": s.objects}

    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        names = {"samples": table_digest(self.run.samples, SAMPLES, "prepare")}  # they name the images
        files = {name: boxes_digest(self.settings, name) for name in box_files(self.settings)}
        return {**super().inputs(tools), **names, **files}

    def weights(self) -> dict[str, str]:
        return {}

    def outputs(self) -> dict[str, str]:
        return {**super().outputs(), **sound_digests({"problems": (self.output_path("problems"), PROBLEMS)})}

    def output_path(self, output: str) -> Path:
        if output == "problems":
            return self.run.outcomes(f"{self.name}-boxes")
        return super().output_path(output)

    def failures(self) -> dict[str, int]:
        return problem_reasons(self.output_path("problems"))

    def compute(self, causes: StageRecord, tools: Tools) -> Counts:
        detections, outcomes, problems = self._from_file(may_lack=tools.all_may_fail)
        shutil.rmtree(self.run.crops, ignore_errors=True)  # they show what an earlier detector found
        write_table(self.run.detections, detections)
        write_table(self.run.outcomes(self.name), outcomes)
        write_table(self.output_path("problems"), table_of(PROBLEMS, problems))
        with_one = len(pc.unique(detections.column("image_key")))
        return Counts(
            "images",
            done=outcomes.num_rows,
            failed=len(problems),
            details={
                "objects": detections.num_rows,
                "images without one": outcomes.num_rows - with_one,
                "rows that were refused": str(self.output_path("problems")) if problems else None,
            },
        )

    def progress(self, causes: StageRecord) -> Progress | None:
        return None  # it takes seconds, and is made as a whole

    def again(
        self, record: StageRecord, share: float, elsewhere: bool, scratch: RunFolder, tools: Tools
    ) -> Rerun:
        detections, outcomes, _ = self._from_file()
        recorded = (
            read_table(self.run.detections, DETECTIONS),
            read_table(self.run.outcomes(self.name), OUTCOMES),
        )
        checked = f"{outcomes.num_rows} images"
        return compare_detections(self.name, recorded, (detections, outcomes), "fp32", checked)

    def _from_file(self, *, may_lack: bool = False) -> tuple[pa.Table, pa.Table, list[dict[str, Any]]]:
        """Return the detections and outcomes that the file makes, and rows of PROBLEMS."""
        images = read_table(self.run.images, IMAGES).to_pylist()
        samples = read_table(self.run.samples, SAMPLES, columns=["image", "image_key"]).to_pylist()
        known, files, s = KnownImages.of(images, samples), box_files(self.settings), self.settings
        found = read_boxes(
            files["boxes"], files.get("annotations"), known, s.objects, s.min_score, may_lack=may_lack
        )
        return found.detections, nothing_in((key, "") for key in sorted(known.sizes)), found.problems
