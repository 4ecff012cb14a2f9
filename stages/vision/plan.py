"""Which views each image has, from the tables of images and detections."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ...cache.spec import FeatureSpec
from ...manifests.fingerprint import digest_json
from ...manifests.schemas import DETECTIONS, IMAGES, SCENES
from ...manifests.tables import read_batches, read_table, usable_images
from ..base.ahead import Made

__all__ = ["SIDES", "Box", "ImageUnit", "ViewPlan", "ViewSource", "iou", "planned_images", "scene_images"]

SIDES = ("x0", "y0", "x1", "y1")

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the upright image


def iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the intersection over union of two boxes; of two without area, whether they are one."""
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    inside = max(width, 0.0) * max(height, 0.0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - inside
    return inside / union if union else float(list(one) == list(other))


@dataclass(frozen=True)
class ImageUnit:
    """An image by its content's sha256, its file, and the boxes of its objects by falling score."""

    key: str
    path: str
    boxes: tuple[Box, ...]

    @property
    def inputs(self) -> str:
        """Return the digest of whatever features are made from besides the image."""
        return digest_json([list(box) for box in self.boxes])


@dataclass(frozen=True)
class ViewPlan:
    """How pixels become features.

    It holds the images with their boxes, the features' spec, and the weights and the backbone as the settings
    name them.
    """

    images: Sequence[ImageUnit]
    spec: FeatureSpec
    weights: str
    backbone: str = ""


class ViewSource(Protocol):
    """What a stage that runs the backbone itself asks of the one that extracts."""

    def parameters(self) -> dict[str, Any]:
        """Return what decides the features, for a fingerprint."""
        ...

    def inputs(self) -> dict[str, str]:
        """Return the digest of each table of the run that it reads."""
        ...

    def before(self) -> tuple[str, ...]:
        """Return the names of the stages that make them."""
        ...

    def weights(self) -> dict[str, str]:
        """Return the digest of the backbone's weights."""
        ...

    def given(self) -> dict[str, Any]:
        """Return the settings as they were given."""
        ...

    def sources(self) -> Iterator[Path]:
        """Yield the files outside the run that it reads."""
        ...

    def plan(self) -> ViewPlan:
        """Return the images, boxes and views that are extracted."""
        ...


def scene_images(images_table: Path, scenes: Path, objects: int) -> Made[ImageUnit]:
    """Return every usable image with the boxes of its scene's best `objects`, in the order of the keys."""
    images = read_table(images_table, IMAGES, "prepare", ["key", "path", "width", "height", "status"])
    images = images.filter(pc.equal(images["status"], "ok"))
    boxes = read_table(scenes, SCENES, "scenes", columns=["image_key", "boxes"])
    rows = pc.index_in(images["key"], boxes["image_key"].combine_chunks()).to_pylist()

    def make(i: int) -> ImageUnit:
        key, path, width, height, _ = (column[i].as_py() for column in images.columns)
        shares = [] if rows[i] is None else boxes["boxes"][rows[i]].as_py()[:objects]
        own = ((x0 * width, y0 * height, x1 * width, y1 * height) for x0, y0, x1, y1 in shares)
        return ImageUnit(key, path, tuple(own))

    return Made(images.num_rows, make)


def planned_images(images_table: Path, detections: Path, objects: int) -> Made[ImageUnit]:
    """Return every usable image with its best `objects` boxes, by falling score, in the order of the keys."""
    images = usable_images(images_table)
    keys, paths = _as_bytes(images.column("key")), images.column("path")
    del images  # and with it the keys a second time
    # Store each box's image as an index into the keys rather than as the key: 200 MB less for a million
    # images.
    count = read_table(detections, DETECTIONS, "detect", columns=[]).num_rows
    place, rank, boxes = (
        np.empty(count, np.int32),
        np.empty(count, np.int8),
        np.empty((count, len(SIDES)), np.float32),
    )
    filled = 0
    for batch in read_batches(detections, DETECTIONS, "detect", ["image_key", "rank", *SIDES]):
        of, ranks = _as_bytes(batch.column("image_key")), batch.column("rank").to_numpy()
        places = np.searchsorted(keys, of)
        wanted = (places < len(keys)) & (ranks < objects)
        wanted[wanted] = keys[places[wanted]] == of[wanted]
        part = slice(filled, filled := filled + int(wanted.sum()))
        place[part], rank[part] = places[wanted], ranks[wanted]
        boxes[part] = np.stack([batch.column(side).to_numpy()[wanted] for side in SIDES], axis=1)
    place, rank, boxes = place[:filled], rank[:filled], boxes[:filled]
    if not (
        (place[1:] > place[:-1]) | ((place[1:] == place[:-1]) & (rank[1:] > rank[:-1]))
    ).all():  # detect writes them in order
        order = np.lexsort((rank, place))
        place, boxes = place[order], boxes[order]
    starts = np.searchsorted(place, np.arange(len(keys) + 1))

    def make(i: int) -> ImageUnit:
        own = boxes[starts[i] : starts[i + 1]].tolist()
        return ImageUnit(
            keys[i].decode("ascii"), paths[i].as_py(), tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in own)
        )

    return Made(len(keys), make)


def _as_bytes(keys: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.bytes_]:
    """Return image keys as numpy's fixed bytes, for searching: 64 bytes per key, half of Python's strings."""
    parts = keys.chunks if isinstance(keys, pa.ChunkedArray) else [keys]
    return np.concatenate([np.zeros(0, "S64"), *(np.array(part.to_pylist(), "S64") for part in parts)])
