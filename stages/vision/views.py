"""From an image and its boxes to the backbone's views: the whole image, then objects by falling score."""

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ...cache.spec import Transform
from .images import open_keyed
from .plan import Box, ImageUnit

__all__ = ["cut_views", "normalise", "read_views"]


def cut_views(image: Image.Image, boxes: Sequence[Box], transform: Transform) -> npt.NDArray[np.uint8]:
    """Return the global view and one view per box, resized by `transform`: (1 + len(boxes), size, size, 3).

    Boxes are cut from the original pixels, with sub-pixel edges; one that is thinner than a pixel is widened
    to it.
    """
    whole = (0.0, 0.0, float(image.width), float(image.height))
    regions = [whole, *(_clip(box, image.width, image.height) for box in boxes)]
    return np.stack([np.asarray(_cut(image, region, transform)) for region in regions])


def _cut(image: Image.Image, region: Box, transform: Transform) -> Image.Image:
    """Return a region, resized.

    It is cropped to whole pixels first: resizing the region alone would blend in what lies beyond its edges.
    """
    left, top = math.floor(region[0]), math.floor(region[1])
    crop = image.crop((left, top, math.ceil(region[2]), math.ceil(region[3])))
    x0, y0, x1, y1 = region
    return crop.resize(
        (transform.size, transform.size),
        Image.Resampling[transform.interpolation.upper()],
        box=(x0 - left, y0 - top, x1 - left, y1 - top),
    )


def _clip(box: Box, width: int, height: int) -> Box:
    x0, x1 = _clip_side(box[0], box[2], width)
    y0, y1 = _clip_side(box[1], box[3], height)
    return (x0, y0, x1, y1)


def _clip_side(low: float, high: float, limit: int) -> tuple[float, float]:
    low = min(max(low, 0.0), limit - 1.0)
    return low, min(max(high, low + 1.0), float(limit))


def read_views(image: ImageUnit, transform: Transform) -> npt.NDArray[np.uint8]:
    """Return `cut_views` of the image's file and boxes, decoded once. Raises UnusableImage."""
    return cut_views(open_keyed(Path(image.path), image.key), image.boxes, transform)


def normalise(views: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (views / 255 - mean) / std, (N, 3, S, S) float32 in channels-last memory.

    views: (N, S, S, 3) uint8.
    """
    # Whole rows of pixels at a time: arithmetic over a last dimension of three is eight times slower.
    centre, scale = (_row_of(tuple(of), views.shape[2], views.device) for of in (mean, std))
    rows = views.reshape(*views.shape[:2], -1).to(torch.float32).sub_(centre).div_(scale)
    return rows.reshape(views.shape).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)
def _row_of(values: tuple[float, ...], side: int, device: torch.device) -> Tensor:
    """Return `side` pixels of these values: kept, as a GPU would be waited for each time they are sent."""
    with torch.inference_mode(mode=False):  # the next to use it may be a training
        return torch.tensor(values, device=device).mul(255.0).repeat(side)
