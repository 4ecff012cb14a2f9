"""What a worker does for the detect stage: a chunk of images becomes two committed tables and crops."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ...manifests.files import atomic_path
from ...manifests.schemas import DETECTIONS, OUTCOMES
from ...manifests.tables import table_of, write_table
from ..base.ahead import prefetched
from ..base.arithmetic import Arithmetic, autocast
from ..vision.detectors.torchvision import Detector, build_detector
from ..vision.fused import for_inference
from ..vision.images import UnusableImage, open_keyed
from .unit import ChunkUnit, chunk_tables

__all__ = ["detect_chunk"]


@lru_cache(maxsize=1)
def _detector(name: str, weights: str, min_score: float, arithmetic: Arithmetic) -> Detector:
    """Return one network per process, loaded once."""
    detector = build_detector(name, weights, min_score)
    for_inference(detector.network, arithmetic)
    return detector


def detect_chunk(unit: ChunkUnit) -> Path:
    """Detect in one chunk and commit its two tables.

    Idempotent: a chunk that an interrupted run committed is kept.
    """
    detections_path, outcomes_path = chunk_tables(unit.stem)
    if outcomes_path.is_file():
        return unit.stem
    detector = _detector(unit.detector, unit.weights, unit.min_score, unit.arithmetic)
    device = torch.device(unit.arithmetic.device)
    detections: list[dict[str, Any]] = []
    outcomes: list[dict[str, Any]] = []
    opened = prefetched(_image_or_reason(Path(path), key) for key, path in unit.images)
    for (key, _), image in zip(unit.images, opened, strict=True):
        if isinstance(image, str):
            outcomes.append({"image_key": key, "status": "failed", "reason": image})
            continue
        with autocast(device, unit.arithmetic.precision):
            objects = detector.top_objects(image, unit.objects, unit.min_score)
        for rank, found in enumerate(objects):
            corners = dict(zip(("x0", "y0", "x1", "y1"), found.box, strict=True))
            detections.append(
                {"image_key": key, "rank": rank, **corners, "label": found.label, "score": found.score}
            )
            if unit.crops is not None:
                x0, y0, x1, y1 = found.box
                crop = image.crop(
                    (int(x0), int(y0), max(int(x1 + 0.5), int(x0) + 1), max(int(y1 + 0.5), int(y0) + 1))
                )
                with atomic_path(Path(unit.crops) / f"{key}-{rank}.jpg", durable=False) as temporary:
                    crop.save(temporary, "JPEG", quality=90)
        outcomes.append({"image_key": key, "status": "done", "reason": None})
    write_table(detections_path, table_of(DETECTIONS, detections))
    write_table(outcomes_path, table_of(OUTCOMES, outcomes))
    return unit.stem


def _image_or_reason(path: Path, key: str) -> Image.Image | str:
    try:
        return open_keyed(path, key)
    except UnusableImage as error:
        return str(error)
