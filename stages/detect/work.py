"""What a worker does for the detect stage: a chunk of images becomes two committed tables and crops."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ...manifests.files import atomic_path
from ...manifests.schemas import DETECTIONS, OUTCOMES
from ...manifests.tables import table_of, write_table
from ..base.ahead import decoders, in_threads
from ..base.arithmetic import Arithmetic, autocast
from ..vision.detectors.build import build_detector
from ..vision.detectors.detector import Detector, Object
from ..vision.images import UnusableImage, open_keyed
from ..vision.outcomes import Failure, failure_of_one, outcome
from .unit import ChunkUnit, chunk_tables

__all__ = ["detect_chunk"]


_LONGEST_SIDE = 65_500  # of a JPEG


@lru_cache(maxsize=1)
def _detector(name: str, weights: str, min_score: float, arithmetic: Arithmetic) -> Detector:
    """Return one network per process, loaded once."""
    detector = build_detector(name, weights, min_score)
    detector.prepare(arithmetic)
    return detector


def detect_chunk(unit: ChunkUnit) -> Path:
    """Detect in one chunk, commit its two tables, and return what their names start with.

    Idempotent: a chunk that an interrupted run committed is kept. An image that cannot be read, or that the
    detector cannot take, is a row of its own.
    """
    if chunk_tables(unit.stem)[1].is_file():
        return unit.stem
    detector = _detector(unit.detector, unit.weights, unit.min_score, unit.arithmetic)
    detections: list[dict[str, Any]] = []
    outcomes: list[dict[str, Any]] = []
    missed = False
    opened = in_threads(_image_or_failure, unit.images, decoders(unit.arithmetic.device))
    for (key, _), image in zip(unit.images, opened, strict=True):
        objects = image if isinstance(image, Failure) else _objects_or_failure(detector, image, unit)
        if isinstance(image, Failure) or isinstance(objects, Failure):
            assert isinstance(objects, Failure)
            outcomes.append(outcome(key, objects))
            missed = missed or objects.passing
            continue
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
                crop.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
                with atomic_path(Path(unit.crops) / f"{key}-{rank}.jpg", durable=False) as temporary:
                    crop.save(temporary, "JPEG", quality=90)
        outcomes.append(outcome(key))
    stem = unit.missed_stem if missed else unit.stem
    for path, table in zip(
        chunk_tables(stem), (table_of(DETECTIONS, detections), table_of(OUTCOMES, outcomes)), strict=True
    ):
        write_table(path, table)
    return stem


def _image_or_failure(keyed: tuple[str, str]) -> Image.Image | Failure:
    key, path = keyed
    try:
        return open_keyed(Path(path), key)
    except UnusableImage as error:
        return Failure.of(error)


def _objects_or_failure(detector: Detector, image: Image.Image, unit: ChunkUnit) -> list[Object] | Failure:
    """Return the objects of an image, or why the network cannot take it: it may raise anything."""
    device = torch.device(unit.arithmetic.device)
    try:
        with autocast(device, unit.arithmetic.precision):
            return detector.top_objects(image, unit.objects, unit.min_score)
    except Exception as error:
        reason = failure_of_one(error, device).reason
        return Failure(f"the detector cannot take {image.width} x {image.height} pixels: {reason}")
