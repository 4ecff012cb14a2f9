"""How close detections are: computed again to recorded ones, and a run's to a lock's probes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...manifests.schemas import DETECTIONS
from ...manifests.tables import read_table
from ..base.stage import Rerun
from ..vision.plan import SIDES, iou

__all__ = ["box_distance", "box_probes", "compare_detections"]

# How far another order of sums may move a result, on another machine or with another version. Beyond this it
# is another result. bf16 keeps 8 bits.
_BOX_PIXELS = {"fp32": 0.1, "bf16": 4.0}
_SCORE = {"fp32": 1e-3, "bf16": 0.05}
# A box counts as found again with this intersection over union and the same label. Some weak detections near
# the threshold disappear.
_SAME_BOX = 0.9
_FOUND_AGAIN = 0.5
# The number of boxes whose numbers a lock contains.
_BOXES = 16


def compare_detections(
    stage: str,
    old: tuple[pa.Table, ...],
    new: tuple[pa.Table, ...],
    precision: str,
    checked: str,
) -> Rerun:
    """Compare (detections, outcomes) of the same images, as recorded and as computed again."""
    order = [("image_key", "ascending"), ("rank", "ascending")]
    boxes_there, boxes_here = (tables[0].sort_by(order) for tables in (old, new))
    outcomes_there, outcomes_here = (tables[1].sort_by("image_key") for tables in (old, new))
    same_outcomes = outcomes_here.equals(outcomes_there)
    if boxes_here.equals(boxes_there) and same_outcomes:
        return Rerun(stage, "equal", checked)
    remarks = [] if same_outcomes else ["other images failed, or for another reason"]
    fixed = ("image_key", "rank", "label")
    if boxes_here.num_rows != boxes_there.num_rows or any(
        not boxes_here.column(name).equals(boxes_there.column(name)) for name in fixed
    ):
        remarks.append(
            f"other objects: {boxes_there.num_rows} recorded, {boxes_here.num_rows} now, "
            "or other labels or places in the order"
        )
        return Rerun(stage, "different", checked, remarks=remarks)
    pixels = max(_apart(boxes_here.column(side), boxes_there.column(side)) for side in SIDES)
    scores = _apart(boxes_here.column("score"), boxes_there.column("score"))
    close = same_outcomes and pixels <= _BOX_PIXELS[precision] and scores <= _SCORE[precision]
    distances = {"boxes (pixels)": pixels, "scores": scores}
    return Rerun(stage, "close" if close else "different", checked, distances, remarks)


def _apart(a: pa.ChunkedArray, b: pa.ChunkedArray) -> float:
    return float(np.abs(a.to_numpy().astype(np.float64) - b.to_numpy().astype(np.float64)).max(initial=0.0))


def box_probes(detections: Path) -> list[dict[str, Any]]:
    """Return the first boxes of a table, with enough digits for a distance and few enough to read."""
    rows = read_table(detections, DETECTIONS, "detect").slice(0, _BOXES).to_pylist()
    return [
        {
            "image": row["image_key"],
            "label": row["label"],
            "score": float(f"{row['score']:.6g}"),
            "box": [float(f"{side:.6g}") for side in _box(row)],
        }
        for row in rows
    ]


def box_distance(probes: Sequence[Mapping[str, Any]], detections: Path) -> tuple[bool, str]:
    """Return whether enough of the probes' boxes are found again, and how far off they are.

    A box is compared with the one that fits it best.
    """
    if not probes:
        return True, "the lock holds no box to compare"
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in read_table(detections, DETECTIONS).to_pylist():
        rows.setdefault(row["image_key"], []).append(row)
    moved, scores = [], []
    for probe in probes:
        same = [row for row in rows.get(probe["image"], []) if row["label"] == probe["label"]]
        best = max(same, key=lambda row: iou(probe["box"], _box(row)), default=None)
        if best is not None and iou(probe["box"], _box(best)) >= _SAME_BOX:
            moved.append(max(abs(a - b) for a, b in zip(probe["box"], _box(best), strict=True)))
            scores.append(abs(probe["score"] - best["score"]))
    text = f"{len(moved)} of {len(probes)} sampled boxes are found again"
    if moved:
        text += f", at most {max(moved):.2g} pixels and {max(scores):.2g} of score away"
    return len(moved) >= _FOUND_AGAIN * len(probes), text


def _box(row: Mapping[str, Any]) -> list[float]:
    return [row[side] for side in SIDES]
