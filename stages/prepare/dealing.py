"""Images that have nothing to do with their texts: random ones of the folder in place of the samples' own.

The texts stay what they are, and so does the name of the image that a text gives. What is dealt depends on
the seed, on the samples and on the names of the folder's images alone.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...manifests.errors import InputError
from ..vision.folder import image_names

__all__ = ["dealt"]


def dealt(names: Sequence[str | None], folder: Path, seed: int, share: float) -> list[str | None]:
    """Return the image name of each sample, of which a `share` is dealt an image of the folder at random.

    names: those that the texts give, None where there is none. share: from 0 to 1. A larger share deals the
    same images to the same samples, and to more. Raises InputError where the folder holds no image.
    """
    images = image_names(folder)
    if not images:
        raise InputError(f"{folder} holds no image to deal out; give another folder with --images")
    drawn = np.random.default_rng(seed)
    chances = drawn.random(len(names))
    numbers = drawn.integers(len(images), size=len(names))
    return [
        images[number] if chance < share else name
        for name, chance, number in zip(names, chances, numbers, strict=True)
    ]
