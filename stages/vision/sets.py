"""Named feature sets: which levels of a backbone, pooled to which side, of which views; needs no torch.

`pyramid`, `grid`, `vector` and `scene-vector` are built in; others are tables [features.NAME] of run.toml:

    [features.coarse]
    levels = [3, 4]     # counted from 1, the finest, or from -1, the last; all where there is none
    side = 1
    views = "objects"   # "all" (the image, then its objects), "image", "objects", or "scene": those of the
                        # image's scene graph, whatever made it
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cache.spec import ALL, IMAGE, OBJECTS, REGIONS, SCENE, FeatureSpec
from ...manifests.advice import typed
from ...manifests.errors import InputError, StageError, unknown_name
from ...manifests.run import SCENE_SET
from .backbones import BACKBONES, BackboneInfo, backbone_info

__all__ = [
    "GRID",
    "MOST_SIDE",
    "PYRAMID",
    "SCENE_VECTOR",
    "SETS",
    "VECTOR",
    "FeatureSet",
    "derived",
    "feature_set",
    "serves",
]

MOST_SIDE = 64
"""The largest side of a pooled level: more than the finest level of a view of 224 pixels has."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class FeatureSet:
    """The part of a backbone's output that a feature set keeps.

    levels: their numbers, from 1, the finest, or from -1, the last; empty for all.
    side: what each level is pooled to.
    views: one of cache.spec.REGIONS.
    """

    name: str
    levels: tuple[int, ...] = ()
    side: int = 2
    views: str = ALL

    def __post_init__(self) -> None:
        where = f"[features.{self.name}]"
        if not _NAME.fullmatch(self.name):
            raise InputError(f"{where}: the name of a feature set is of small letters, digits, - and _")
        if self.name == SCENE_SET:
            raise InputError(f"{where}: features of this name are those of scene graphs; choose another name")
        if self.views not in REGIONS:
            raise unknown_name(f"{where} views", self.views, REGIONS)
        if self.side < 1:
            raise InputError(f"{where} side = {self.side}: it must be at least 1")
        if self.side > MOST_SIDE:
            raise InputError(f"{where} side = {self.side}: it must be at most {MOST_SIDE}")
        if 0 in self.levels or len(set(self.levels)) < len(self.levels):
            raise InputError(
                f"{where} levels = {list(self.levels)}: they count from 1, or from -1, each once"
            )

    @classmethod
    def of_table(cls, name: str, table: Mapping[str, Any]) -> "FeatureSet":
        """Return the set of the table [features.NAME] of run.toml. Raises InputError for a wrong entry."""
        kinds = {"levels": list, "side": int, "views": str}
        for key, value in table.items():
            if key not in kinds:
                raise unknown_name(f"[features.{name}] entry", key, kinds)
            numbers = value if isinstance(value, list) else [0 if isinstance(value, str) else value]
            whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
            if not isinstance(value, kinds[key]) or not whole:
                raise InputError(f"[features.{name}] {key} = {value!r} is not {_KINDS[key]}")
        return cls(name, **{**table, "levels": tuple(table.get("levels", ()))})

    def to_table(self) -> dict[str, Any]:
        """Return the table of run.toml that `of_table` reads."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "name"}
        return {**values, "levels": list(self.levels)}

    def views_of(self, objects: int, most: int) -> int:
        """Return how many views the set takes of an image with so many objects, of which `most` are used."""
        used = min(objects, most)
        return {ALL: 1 + used, IMAGE: 1}.get(self.views, used)

    def spec(
        self, backbone: BackboneInfo, size: int, *, weights: str, objects: int, dtype: str, precision: str
    ) -> FeatureSpec:
        """Return what the numbers of this set are, made by `backbone` from views of `size` (0: its own).

        weights: the digest of the backbone's. objects: the most that an image has. Raises InputError where
        the backbone lacks these levels, or the set has no view.
        """
        known = backbone.levels
        wanted = self.levels or range(1, 1 + len(known))
        numbers = tuple(sorted(number if number > 0 else 1 + len(known) + number for number in wanted))
        if numbers[0] < 1 or numbers[-1] > len(known) or len(set(numbers)) < len(numbers):
            raise InputError(
                f"[features.{self.name}] levels = {list(self.levels)}: {backbone.name} has {len(known)} level"
                f"{'s' * (len(known) != 1)}"
            )
        views = self.views_of(objects, objects)
        if not views:
            raise InputError(f"[features.{self.name}] takes objects, and [detect] has objects = 0")
        return FeatureSpec(
            backbone=backbone.name,
            weights=weights,
            transform=backbone.transform(size),
            levels=tuple(known[number - 1] for number in numbers),
            pooled=self.side,
            views=views,
            dtype=dtype,
            numbers=numbers,
            regions=self.views,
            precision=precision,
            strides=() if backbone.name in BACKBONES else backbone.strides,
        )


_KINDS = {"levels": "a list of numbers", "side": "a number", "views": "a text"}

PYRAMID = FeatureSet("pyramid")
GRID = FeatureSet("grid", levels=(-1,), side=7, views=IMAGE)
VECTOR = FeatureSet("vector", levels=(-1,), side=1)
SCENE_VECTOR = FeatureSet("scene-vector", levels=(-1,), side=1, views=SCENE)
SETS = {one.name: one for one in (PYRAMID, GRID, VECTOR, SCENE_VECTOR)}


def feature_set(name: str, own: Mapping[str, FeatureSet] | None = None) -> FeatureSet:
    """Return the set `name`: one of `own`, by name, or a built-in one.

    Raises InputError, which lists them, where there is none.
    """
    known = {**SETS, **(own or {})}
    if name not in known:
        raise unknown_name("feature set", name, known)
    return known[name]


def serves(held: FeatureSpec, wanted: FeatureSpec) -> bool:
    """Return whether the numbers of `wanted` follow from those of `held`, except for rounding in storage.

    A level's side follows from another only where the bins nest: adaptive pooling of the smaller side must
    average the very cells of the larger one that it averages of the map, and these must be of equal weight.
    From its native 7 x 7 a level is pooled to any side; from 2 x 2 it is not pooled to 1, since the middle
    row and column would count twice.
    """
    same = ("backbone", "weights", "transform")
    if any(getattr(held, name) != getattr(wanted, name) for name in same):
        return False
    if "" not in (held.precision, wanted.precision) and held.precision != wanted.precision:
        return False  # "" where it was not recorded
    if not set(wanted.numbers) <= set(held.numbers) or _first_view(held, wanted) is None:
        return False
    return held.pooled == wanted.pooled or all(
        _nests(_native(held, number), held.pooled, wanted.pooled) for number in wanted.numbers
    )


def _native(held: FeatureSpec, number: int) -> int:
    """Return how many cells a row of a level's map has before it is pooled; 0 where that is not known.

    torchvision's networks fill up the edge of a view that their strides do not divide. Others may leave it
    out.
    """
    stride = (held.strides or backbone_info(held.backbone).strides)[number - 1]
    if held.strides and held.transform.size % stride:
        return 0
    return -(-held.transform.size // stride)


def _first_view(held: FeatureSpec, wanted: FeatureSpec) -> int | None:
    """Return which view of `held` is the first of `wanted`, or None where it does not hold them all."""
    first = (
        0
        if wanted.regions == held.regions
        else {ALL: {IMAGE: 0, OBJECTS: 1}}.get(held.regions, {}).get(wanted.regions)
    )
    return first if first is not None and first + wanted.views <= held.views else None


def _bins(cells: int, side: int) -> list[tuple[int, int]]:
    """Return the cells [first, last) that each of `side` bins of adaptive pooling averages, of `cells`."""
    return [(i * cells // side, -(-(i + 1) * cells // side)) for i in range(side)]


def _nests(native: int, held: int, wanted: int) -> bool:
    """Return whether pooling `native` cells to `held` and then to `wanted` is pooling them to `wanted`."""
    if not native or native % held:  # not known, or bins that overlap or are not of one size
        return False
    width = native // held
    return [(first * width, last * width) for first, last in _bins(held, wanted)] == _bins(native, wanted)


def derived(
    values: npt.NDArray[Any],
    mask: npt.NDArray[np.bool_],
    held: FeatureSpec,
    wanted: FeatureSpec,
    *,
    name: str,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return the features and view mask of the set `wanted` from a batch of the set `held`.

    values: (B, V, C, p, p), as FeatureCache.gather returns them; mask: (B, V). Features that are pooled again
    are float32. Raises StageError, which names the command that makes the set `name`, where `held` does not
    serve.
    """
    first = _first_view(held, wanted)
    if first is None or not serves(held, wanted):
        raise StageError(
            f"the feature set {name} does not follow exactly from the one that is there; "
            f"run `{typed('extract', 'RUN', '--features', name)}`"
        )
    views = slice(first, first + wanted.views)
    ends = np.cumsum(held.levels)
    chosen = [held.numbers.index(number) for number in wanted.numbers]
    channels = np.concatenate([np.arange(ends[i] - held.levels[i], ends[i]) for i in chosen])
    taken = values[:, views][:, :, channels]
    if held.pooled != wanted.pooled:
        taken = _averaged(taken.astype(np.float32), wanted.pooled)
    return taken, mask[:, views]


def _averaged(values: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Return values (..., p, p) averaged over the bins of adaptive pooling: (..., side, side)."""
    bins: Sequence[tuple[int, int]] = _bins(values.shape[-1], side)
    rows = [[values[..., a:b, c:d].mean(axis=(-2, -1)) for c, d in bins] for a, b in bins]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
