"""What a worker does for the extract stage: one shard, from image files to a committed HDF5 file."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from toolz import partition_all
from torch import Tensor

from ...cache.reader import IndexRow
from ...cache.shards import Shard, ShardError, write_shard
from ...cache.spec import STORAGE_DTYPES, Transform
from ..base.ahead import prefetched
from ..base.arithmetic import Arithmetic, autocast
from ..vision.backbones.backbone import Backbone
from ..vision.backbones.build import build_backbone
from ..vision.fused import for_inference
from ..vision.images import UnusableImage
from ..vision.plan import ImageUnit
from ..vision.pooling import pooled_and_joined
from ..vision.views import normalise, read_views
from .unit import ShardResult, ShardUnit

__all__ = ["extract_shard"]

# Images that go through a GPU's kernels together. A processor takes the views of one image, which is as fast
# there, and makes an image's numbers its own: no neighbour, shard or later addition can move their last bits.
_IMAGES_PER_GPU_BATCH = 8


@lru_cache(maxsize=1)
def _backbone(name: str, weights: str, arithmetic: Arithmetic) -> Backbone:
    """Return one network per process, loaded once."""
    return for_inference(build_backbone(name, weights), arithmetic)


def extract_shard(unit: ShardUnit) -> ShardResult:
    """Compute and commit one shard.

    Idempotent: a shard that an interrupted run committed is checked and kept.
    """
    if (kept := _committed(unit)) is not None:
        return kept
    spec = unit.spec
    network = _backbone(spec.backbone, unit.weights, unit.arithmetic)
    device = torch.device(unit.arithmetic.device)
    keys: list[str] = []
    inputs: list[str] = []
    failed: list[tuple[str, str]] = []
    rows: list[np.ndarray[Any, Any]] = []
    masks: list[np.ndarray[Any, Any]] = []
    views_of = prefetched(_views_or_reason(image, unit.spec.transform) for image in unit.images)
    for group in partition_all(
        1 if device.type == "cpu" else _IMAGES_PER_GPU_BATCH, zip(unit.images, views_of, strict=True)
    ):
        views: list[np.ndarray[Any, Any]] = []
        for image, found in group:
            if isinstance(found, str):
                failed.append((image.key, found))
                continue
            views.append(found)
            keys.append(image.key)
            inputs.append(image.inputs)
        if not views:
            continue
        with torch.inference_mode(), autocast(device, unit.arithmetic.precision):
            pixels = torch.from_numpy(np.concatenate(views)).to(device)
            maps = network(normalise(pixels, spec.transform.mean, spec.transform.std))
            features = pooled_and_joined(maps, spec.pooled).float().cpu()
        start = 0
        for view in views:
            row = np.zeros(spec.row_shape, STORAGE_DTYPES[spec.dtype])
            row[: len(view)] = _stored(features[start : start + len(view)], spec.dtype)
            rows.append(row)
            masks.append(np.arange(spec.views) < len(view))
            start += len(view)
    checksums = write_shard(
        unit.path,
        unit=unit.digest,
        spec=spec,
        keys=keys,
        view_mask=np.stack(masks) if masks else np.zeros((0, spec.views), np.bool_),
        pyramid=np.stack(rows) if rows else np.zeros((0, *spec.row_shape), STORAGE_DTYPES[spec.dtype]),
    )
    index = tuple(
        IndexRow(*fields)
        for fields in zip(
            keys, [unit.path.name] * len(keys), range(len(keys)), checksums, inputs, strict=True
        )
    )
    return ShardResult(index, tuple(failed))


def _views_or_reason(image: ImageUnit, transform: Transform) -> npt.NDArray[np.uint8] | str:
    try:
        return read_views(image, transform)
    except UnusableImage as error:
        return str(error)


def _committed(unit: ShardUnit) -> ShardResult | None:
    """The result of a shard that is already there, whole, and made from this very unit; else None."""
    try:
        shard = Shard(unit.path)
    except ShardError:
        return None
    images = {image.key: image for image in unit.images}
    # An image that failed may have been mended since: then the shard is made again.
    if shard.unit != unit.digest or set(shard.keys) != set(images) or shard.damaged_rows():
        return None
    rows = zip(shard.keys, shard.checksums.tolist(), strict=True)
    return ShardResult(
        tuple(
            IndexRow(key, unit.path.name, row, checksum, images[key].inputs)
            for row, (key, checksum) in enumerate(rows)
        ),
        (),
    )


def _stored(features: Tensor, dtype: str) -> np.ndarray[Any, Any]:
    """Features (N, C, p, p) float32 in the storage dtype.

    A value beyond float16's range becomes its largest, not infinity.
    """
    if dtype == "bfloat16":
        return features.to(torch.bfloat16).view(torch.uint16).numpy()
    if dtype == "float16":
        limit = torch.finfo(torch.float16).max
        return features.clamp(-limit, limit).to(torch.float16).numpy()
    return features.numpy()
