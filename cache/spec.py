"""What the numbers of a feature set are."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "ALL",
    "IMAGE",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "OBJECTS",
    "REGIONS",
    "SCENE",
    "STORAGE_DTYPES",
    "FeatureSpec",
    "Transform",
    "as_numbers",
]

# What the views of a row show: the whole image and then its detected objects, the image alone, those objects
# alone, or the objects of its scene graph alone.
ALL, IMAGE, OBJECTS, SCENE = REGIONS = ("all", "image", "objects", "scene")

# The statistics of ImageNet's pixels, red, green and blue from 0 to 1: most backbones were trained with them.
IMAGENET_MEAN: tuple[float, ...] = (0.485, 0.456, 0.406)
IMAGENET_STD: tuple[float, ...] = (0.229, 0.224, 0.225)

# bfloat16 has no HDF5 type; its bits are kept as uint16.
STORAGE_DTYPES: dict[str, type[np.generic]] = {
    "float16": np.float16,
    "float32": np.float32,
    "bfloat16": np.uint16,
}


def as_numbers(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """Return stored values as numbers: bfloat16's bits as float32, with 16 more zero bits of mantissa."""
    if dtype != "bfloat16":
        return values
    return (values.astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True)
class Transform:
    """How a view becomes a network's input.

    It is resized to size x size by Pillow's `interpolation`, without regard to its aspect, then scaled to
    0..1, less `mean`, over `std`.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str

    def __str__(self) -> str:
        """Return these facts as the sentence that fingerprints contain. It must never change."""
        if (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD):
            statistics = "ImageNet mean and standard deviation"
        else:
            statistics = f"mean {self.mean} and standard deviation {self.std}"
        resized = f"PIL {self.interpolation}, plain resize to {self.size}x{self.size}"
        return f"{resized}; scaled to 0..1; {statistics}"


@dataclass(frozen=True)
class FeatureSpec:
    """What the numbers of a feature set are; equal specs can be read together.

    weights: the digest of the backbone's weights.
    levels: the channels of each level that is kept, from fine to coarse.
    numbers: which of the backbone's levels these are, counted from 1, the finest; by default all.
    pooled: the side p of each level after pooling.
    regions: what the views show, one of REGIONS.
    views: the largest number of views of an image.
    dtype: what is stored.
    precision: what the backbone computed in. It is not compared: caches made before it was recorded have none
    (""), and extract's own record has it.
    strides: pixels of a view per cell of each of the backbone's levels, where no table has them. They are not
    compared either: they follow from the backbone.
    """

    backbone: str
    weights: str
    transform: Transform
    levels: tuple[int, ...]
    pooled: int
    views: int
    dtype: str
    numbers: tuple[int, ...] = ()
    regions: str = ALL
    precision: str = field(default="", compare=False)
    strides: tuple[int, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.numbers:
            object.__setattr__(self, "numbers", tuple(range(1, 1 + len(self.levels))))

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "FeatureSpec":
        """Return the spec that `to_json` gave; in older caches its transform is a sentence."""
        transform = values["transform"]
        return cls(
            **{
                **values,
                "transform": _of_sentence(transform) if isinstance(transform, str) else _of_facts(transform),
                "levels": tuple(values["levels"]),
                "numbers": tuple(values.get("numbers", ())),
                "strides": tuple(values.get("strides", ())),
            }
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Return what digests and fingerprints contain of it, so that those of older caches stay valid.

        These are the fields of the first version, with the transform as a sentence, and of the later ones
        those that differ from all levels of all views.
        """
        values = {**asdict(self), "transform": str(self.transform)}
        del values["precision"], values["strides"]  # they show in the numbers
        if self.numbers == tuple(range(1, 1 + len(self.levels))):
            del values["numbers"]
        if self.regions == ALL:
            del values["regions"]
        return values

    def difference(self, other: "FeatureSpec") -> str:
        """Return the first field in which another spec differs, with both values."""
        ours, theirs = asdict(self), asdict(other)
        name = next((name for name in ours if ours[name] != theirs[name]), "")
        return f"{name} {ours[name]!r} instead of {theirs[name]!r}" if name else "the same"

    @property
    def row_shape(self) -> tuple[int, int, int, int]:
        """Return the shape (V, C, p, p) of an image's features."""
        return (self.views, sum(self.levels), self.pooled, self.pooled)


def _of_facts(values: Mapping[str, Any]) -> Transform:
    return Transform(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


_SENTENCE = re.compile(
    r"PIL (\w+), plain resize to (\d+)x\d+; scaled to 0\.\.1; "
    r"(?:ImageNet mean and standard deviation|mean \((.*)\) and standard deviation \((.*)\))"
)


def _of_sentence(text: str) -> Transform:
    """Return the transform that the sentence `text` describes. Raises ValueError where it describes none."""
    if found := _SENTENCE.fullmatch(text):
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        if found[3] is not None:
            mean, std = (tuple(map(float, numbers.split(","))) for numbers in (found[3], found[4]))
        transform = Transform(int(found[2]), mean, std, found[1])
        if str(transform) == text:
            return transform
    raise ValueError(f"its transform {text!r} is not known")
