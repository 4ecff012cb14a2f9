"""What the user's own records say of images, checked: which image one names, its boxes, labels and scores."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["BadRecord", "KnownImages", "box_in", "is_number", "score_in", "shown", "text_in"]

# What a detector's arithmetic may put a box beyond the edge of its image, in pixels; such a box is cut there.
_EDGE = 1.0


class BadRecord(Exception):
    """What is wrong with one record: its row of the failure table. The other records are read on."""


@dataclass(frozen=True)
class KnownImages:
    """The usable images of a run. sizes: width and height in pixels, by key. names: the keys of each name."""

    sizes: Mapping[str, tuple[int, int]]
    names: Mapping[str, set[str]]

    @classmethod
    def of(cls, images: Iterable[Mapping[str, Any]], samples: Iterable[Mapping[str, Any]]) -> "KnownImages":
        """Return those of rows of images.parquet and samples.parquet."""
        sizes: dict[str, tuple[int, int]] = {}
        names: dict[str, set[str]] = {}
        for row in images:
            if row["status"] == "ok":
                sizes[row["key"]] = (row["width"], row["height"])
                # Of posts there are no samples, and a run's images may have other names there.
                names.setdefault(Path(row["path"]).name, set()).add(row["key"])
        for row in samples:
            if row["image"] is not None:
                keys = {row["image_key"]} - {None}
                for name in {row["image"], Path(row["image"]).name}:
                    names.setdefault(name, set()).update(keys)
        return cls(sizes, names)

    def key(self, name: Any) -> str:
        """Return the key of the image that a record names. Raises BadRecord where it is none or several."""
        if not isinstance(name, str) or not name:
            raise BadRecord(f"image must be a file name or a content key, not {shown(name)}")
        if name in self.sizes:
            return name
        known = name if name in self.names else Path(name).name
        found = sorted(self.names.get(known, set()) & self.sizes.keys())
        if len(found) > 1:
            raise BadRecord(
                f"the image {name!r} is {len(found)} images of this run; name it by its content key"
            )
        if not found:
            wrong = "not usable" if known in self.names else "not one of this run"
            raise BadRecord(f"the image {name!r} is {wrong}")
        return found[0]


def box_in(value: Any, size: tuple[int, int], what: str) -> tuple[float, float, float, float]:
    """Return a box, x0, y0, x1, y1 in pixels, cut at the edges of an image of this size.

    what: how a message calls it, behind "the box". Raises BadRecord where it is none, or is not in the image.
    """
    if not isinstance(value, list) or len(value) != 4 or not all(map(is_number, value)):
        raise BadRecord(f"the box{what} must be four numbers x0, y0, x1, y1, not {shown(value)}")
    x0, y0, x1, y1 = map(float, value)
    if not (x0 < x1 and y0 < y1):
        raise BadRecord(f"the box {shown(value)}{what} is empty: x0 < x1 and y0 < y1 must hold")
    width, height = size
    outside = f"the box {shown(value)}{what} lies outside the image of {width} x {height}"
    if min(x0, y0) < -_EDGE or x1 > width + _EDGE or y1 > height + _EDGE:
        raise BadRecord(outside)
    x0, x1 = max(x0, 0.0), min(x1, float(width))
    y0, y1 = max(y0, 0.0), min(y1, float(height))
    if not (x0 < x1 and y0 < y1):
        raise BadRecord(outside)
    return x0, y0, x1, y1


def text_in(value: Any, what: str) -> str:
    """Return a text that is not empty. Raises BadRecord where it is none."""
    if not isinstance(value, str) or not value:
        raise BadRecord(f"{what} must be a text, not {shown(value)}")
    return value


def score_in(value: Any, what: str) -> float:
    """Return a number from 0 to 1. Raises BadRecord where it is none."""
    if not is_number(value) or not 0 <= value <= 1:
        raise BadRecord(f"{what} must be a number from 0 to 1, not {shown(value)}")
    return float(value)


def is_number(value: Any) -> bool:
    """Return whether a value is a number that can be one of pixels or a score."""
    return type(value) in (int, float) and abs(value) < 1e9 and math.isfinite(value)


def shown(value: Any) -> str:
    """Return a value of a record for a message."""
    return "nothing" if value is None else f"{value!r:.80}"
