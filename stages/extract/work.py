"""What a worker does for the extract stage: image files become a committed shard of each feature set."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...cache.reader import IndexRow
from ...cache.shards import Shard, ShardError, write_shard
from ...cache.spec import ALL, IMAGE, STORAGE_DTYPES, Transform
from ..base.ahead import decoders, in_threads
from ..base.arithmetic import Arithmetic, autocast
from ..vision.backbones.backbone import Backbone
from ..vision.backbones.build import build_backbone
from ..vision.fused import for_inference, plain
from ..vision.images import open_keyed
from ..vision.outcomes import Failure, failure_of_one
from ..vision.plan import ImageUnit
from ..vision.pooling import pooled_and_joined
from ..vision.views import cut_views, normalise
from .unit import ShardResult, ShardUnit, Target

__all__ = ["extract_shard", "stored"]

# How many images go through a GPU's kernels together. A processor takes the views of one image, which is as
# fast there and makes an image's numbers its own: no neighbour, shard or later addition can move their last
# bits.
_IMAGES_PER_GPU_BATCH = 8
_IMAGES_TOGETHER = {"cpu": 1}


@lru_cache(maxsize=4)
def _backbone(name: str, weights: str, arithmetic: Arithmetic) -> Backbone:
    """Return a network, loaded once per process.

    There is commonly one, and never more than the sets name.
    """
    backbone = build_backbone(name, weights)
    return for_inference(backbone, arithmetic) if backbone.fuses else plain(backbone, arithmetic)


def extract_shard(unit: ShardUnit) -> list[ShardResult]:
    """Compute and commit the shard of each of the unit's targets, and return their results in the same order.

    Each image is read and decoded once and goes once through each backbone that the targets name; each set
    then pools the maps. Idempotent: a target's shard that an interrupted run committed is checked and kept.

    The numbers of a shard equal those of a pass for it alone, to the last bit: all views of an image go
    through the network together, whatever the sets use, and the views of a set are selected afterwards.
    """
    results = {target: _committed(unit, target) for target in unit.targets}
    shards = [_Shard(target) for target, kept in results.items() if kept is None]
    if shards:
        failed = tuple(_fill(shards, unit))
        results |= {shard.target: shard.commit(unit, failed) for shard in shards}
    return [result for target in unit.targets if (result := results[target]) is not None]


_Row = tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]  # features (V, C, p, p), view mask (V,)
_Views = dict[Transform, npt.NDArray[np.uint8]]
_Pass = tuple[str, str, Transform]  # a backbone, its weights as the settings name them, and what it sees


class _Shard:
    """The rows of one target's shard, as they come."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._images: list[ImageUnit] = []
        self._rows: list[npt.NDArray[Any]] = []
        self._masks: list[npt.NDArray[np.bool_]] = []

    def pooled(self, counts: Sequence[int], maps: Sequence[Tensor]) -> list[_Row]:
        """Return each image's row and mask: the maps of all views of some images, pooled as this set does.

        counts: how many views each image has.
        """
        spec, rows = self.target.spec, []
        features = pooled_and_joined([maps[number - 1] for number in spec.numbers], spec.pooled).float().cpu()
        for views in features.split(list(counts)):
            taken = (views if spec.regions in (ALL, IMAGE) else views[1:])[: spec.views]
            row = np.zeros(spec.row_shape, STORAGE_DTYPES[spec.dtype])
            row[: len(taken)] = stored(taken, spec.dtype)
            rows.append((row, np.arange(spec.views) < len(taken)))
        return rows

    def add(self, images: Sequence[ImageUnit], rows: Sequence[_Row]) -> None:
        """Append the rows of images."""
        self._images += images
        self._rows += [row for row, _ in rows]
        self._masks += [mask for _, mask in rows]

    def commit(self, unit: ShardUnit, failed: tuple[tuple[str, Failure], ...]) -> ShardResult:
        """Write the shard and return its part of the index."""
        spec, path = self.target.spec, self.target.path
        none = np.zeros((0, *spec.row_shape), STORAGE_DTYPES[spec.dtype])
        checksums = write_shard(
            path,
            unit=unit.digest(self.target),
            spec=spec,
            keys=[image.key for image in self._images],
            view_mask=np.stack(self._masks) if self._masks else np.zeros((0, spec.views), np.bool_),
            pyramid=np.stack(self._rows) if self._rows else none,
        )
        rows = enumerate(zip(self._images, checksums, strict=True))
        index = (IndexRow(image.key, path.name, row, sum_, image.inputs) for row, (image, sum_) in rows)
        return ShardResult(tuple(index), failed)


def _fill(shards: Sequence[_Shard], unit: ShardUnit) -> Iterator[tuple[str, Failure]]:
    """Put the features of the unit's images into the shards, and yield (key, why) of those that fail."""
    passes: dict[_Pass, list[_Shard]] = {}
    for shard in shards:
        spec = shard.target.spec
        backbone = shard.target.backbone or spec.backbone
        passes.setdefault((backbone, shard.target.weights, spec.transform), []).append(shard)
    transforms = list(dict.fromkeys(transform for _, _, transform in passes))
    device = unit.arithmetic.device
    views = in_threads(partial(_views_or_failure, transforms), unit.images, decoders(device))
    images = zip(unit.images, views, strict=True)
    size = _IMAGES_TOGETHER.get(torch.device(device).type, _IMAGES_PER_GPU_BATCH)
    while group := list(islice(images, size)):
        yield from ((image.key, failure) for image, failure in group if isinstance(failure, Failure))
        usable = [(image, views) for image, views in group if not isinstance(views, Failure)]
        if usable:
            yield from _through(passes, usable, unit.arithmetic)


def _through(
    passes: Mapping[_Pass, Sequence[_Shard]],
    group: Sequence[tuple[ImageUnit, _Views]],
    arithmetic: Arithmetic,
) -> Iterator[tuple[str, Failure]]:
    """Put a group of images through the networks together, or each alone where one of them is in the way."""
    device = torch.device(arithmetic.device)
    images, views = [image for image, _ in group], [of for _, of in group]
    rows: list[tuple[_Shard, list[_Row]]] = []
    try:
        for (backbone, weights, transform), wanting in passes.items():
            network = _backbone(backbone, weights, arithmetic)
            counts = [len(of[transform]) for of in views]
            with torch.inference_mode(), autocast(device, arithmetic.precision):
                pixels = torch.from_numpy(np.concatenate([of[transform] for of in views])).to(device)
                maps = network(normalise(pixels, transform.mean, transform.std))
                rows += [(shard, shard.pooled(counts, maps)) for shard in wanting]
    except Exception as error:  # a network may raise anything over an image that it cannot take
        failure = failure_of_one(error, device)
        if len(group) == 1:
            yield images[0].key, Failure(f"the backbone cannot take it: {failure.reason}")
        else:
            for one in group:
                yield from _through(passes, [one], arithmetic)
        return
    for shard, made in rows:
        shard.add(images, made)


def _views_or_failure(transforms: Sequence[Transform], image: ImageUnit) -> _Views | Failure:
    """Return the views of an image for each transform, decoding it once, or why there are none."""
    try:
        decoded = open_keyed(Path(image.path), image.key)
        return {transform: cut_views(decoded, image.boxes, transform) for transform in transforms}
    except Exception as error:
        return failure_of_one(error, torch.device("cpu"))


def _committed(unit: ShardUnit, target: Target) -> ShardResult | None:
    """Return the result of an existing shard that is whole and made from this unit, otherwise None."""
    try:
        shard = Shard(target.path)
    except ShardError:
        return None
    images = {image.key: image for image in unit.images}
    # An image that failed may have been mended since; then the shard is made again.
    if shard.unit != unit.digest(target) or set(shard.keys) != set(images) or shard.damaged_rows():
        return None
    rows = enumerate(zip(shard.keys, shard.checksums.tolist(), strict=True))
    index = (IndexRow(key, target.path.name, row, sum_, images[key].inputs) for row, (key, sum_) in rows)
    return ShardResult(tuple(index), ())


def stored(features: Tensor, dtype: str) -> np.ndarray[Any, Any]:
    """Return features (N, C, p, p) float32 in the storage dtype.

    A value beyond float16's range becomes its largest, not infinity.
    """
    if dtype == "bfloat16":
        return features.to(torch.bfloat16).view(torch.uint16).numpy()
    if dtype == "float16":
        limit = torch.finfo(torch.float16).max
        return features.clamp(-limit, limit).to(torch.float16).numpy()
    return features.numpy()
