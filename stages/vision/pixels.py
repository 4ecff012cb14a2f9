"""The views of a batch as pixels, cut from the original images as extract does, by several threads."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cache.spec import Transform
from .outcomes import Failure, Failures
from .plan import ImageUnit
from .views import read_views

__all__ = ["Pixels"]

_ENOUGH = 32  # images to have asked for before most of them can be said to be away


class Pixels:
    """Visuals (stages.learning.batches) that reads image files.

    An image that cannot be read or cut has no views, and why is in `failures`. Where most cannot be read,
    `gather` raises StageError: a folder is away.
    """

    def __init__(
        self,
        images: Sequence[ImageUnit],
        *,
        transform: Transform,
        views: int,
        decoders: int,
        all_may_fail: bool = False,
    ) -> None:
        """Hold the images; nothing is read yet.

        transform: how a view is resized. views: 1 + the objects of an image at most. decoders: threads;
        Pillow decodes outside Python's lock. all_may_fail: most images may be away, or all.
        """
        self._images = {image.key: image for image in images}
        self._transform = transform
        self._shape = (views, transform.size, transform.size, 3)
        self._decoders = ThreadPoolExecutor(decoders, thread_name_prefix="decode")
        self._all_may_fail = all_may_fail
        self.failures: dict[str, Failure] = {}
        self._asked: set[str] = set()

    def __contains__(self, key: object) -> bool:
        return key in self._images

    def gather(self, keys: Sequence[str | None]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return uint8 pixels (B, V, S, S, 3) and view mask (B, V): zeros and false where no view is."""
        pixels = np.zeros((len(keys), *self._shape), np.uint8)
        mask = np.zeros((len(keys), self._shape[0]), np.bool_)
        for position, views in enumerate(self._decoders.map(self._cut, keys)):
            if views is not None:
                pixels[position, : len(views)] = views
                mask[position, : len(views)] = True
        self._asked.update(key for key in keys if key in self._images)
        if len(self._asked) >= min(_ENOUGH, len(self._images)):
            self.found("reading images")
        return pixels, mask

    def found(self, stage: str) -> Failures:
        """Return the failures so far, for `stage`. Raises StageError where most images cannot be read."""
        found = Failures(stage, len(self._asked), all_may_fail=self._all_may_fail)
        for key, failure in list(self.failures.items()):
            found.add(key, failure, self._images[key].path)
        return found

    def _cut(self, key: str | None) -> npt.NDArray[np.uint8] | None:
        image = self._images.get(key) if key is not None else None
        if image is None:
            return None
        try:
            return read_views(image, self._transform)
        except Exception as error:  # a resampler may raise anything over an image that it cannot take
            self.failures[image.key] = Failure.of(error)
            return None
