"""The features of the objects of the user's scene graphs, read row by row, and kept as a feature set."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from ...cache.reader import IndexRow, write_index
from ...cache.shards import write_shard
from ...cache.spec import IMAGENET_MEAN, IMAGENET_STD, OBJECTS, FeatureSpec, Transform
from ...manifests.errors import InputError
from ...manifests.files import reason_of, remove_file
from ...manifests.fingerprint import digest_json
from ...manifests.schemas import SCENE_GRAPH
from .scene import Scene

__all__ = ["NAME", "ObjectFeatures", "open_features", "write_features"]

NAME = "object_features"
"""The array (rows, D) in a safetensors or HDF5 file."""

_SHARD_ROWS = 512


class ObjectFeatures:
    """An array (rows, D) of floats that stays on disk."""

    def __init__(self, rows: Any, shape: tuple[int, ...]) -> None:
        self._rows = rows
        self.shape = shape

    def wrong(self, row: Any) -> str | None:
        """Return what is wrong with a row's number, or None."""
        if type(row) is not int or not 0 <= row < self.shape[0]:
            return f"must be one of the {self.shape[0]} rows of the features file, not {row!r:.40}"
        finite = np.isfinite(self[row]).all()
        return None if finite else f"is row {row} of the features file, which is not finite in half precision"

    def __getitem__(self, row: int) -> npt.NDArray[np.float16]:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
            return np.asarray(self._rows[row]).astype("<f2")


@contextmanager
def open_features(path: Path) -> Iterator[ObjectFeatures]:
    """Yield the features in a safetensors file, or in HDF5 where its name does not end in .safetensors.

    Raises InputError where they are not there, or not one row of floats for each object.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="numpy") as tensors:
                found = tensors.get_slice(NAME) if NAME in tensors.keys() else None  # noqa: SIM118
                kind = "" if found is None else found.get_dtype()
                yield _checked(path, found, () if found is None else found.get_shape(), kind[:1] == "F")
        else:
            with h5py.File(path, "r") as file:
                found = file.get(NAME)
                is_array = isinstance(found, h5py.Dataset)
                shape = found.shape if is_array else ()
                yield _checked(path, found if is_array else None, shape, is_array and found.dtype.kind == "f")
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} cannot be read ({reason_of(error)}); give --features a safetensors or HDF5 file with "
            f"the array {NAME}"
        ) from error


def _checked(path: Path, found: Any, shape: Iterable[int], floats: bool) -> ObjectFeatures:
    shape = tuple(shape)
    if found is None or len(shape) != 2 or not floats:
        there = "no array" if found is None else f"an array of the shape {shape}"
        raise InputError(
            f"{path} holds {there} {NAME}; it must be one of floats of the shape (rows, D), "
            "a row for each object"
        )
    return ObjectFeatures(found, shape)


def write_features(
    folder: Path, features: ObjectFeatures, scenes: Mapping[str, Scene], most: int, made_by: str
) -> None:
    """Write the feature set of the objects of these scenes, by image key; each has at most `most`.

    The view of an object is its row of `features`, in float16; there is no view of the whole image. made_by:
    what the features are, as far as that is known; it tells them from others of their width.
    """
    # No pixels were read here; a spec must have a transform, and the same one every time.
    transform = Transform(1, IMAGENET_MEAN, IMAGENET_STD, "bilinear")
    spec = FeatureSpec(
        SCENE_GRAPH, made_by, transform, (features.shape[1],), 1, most, "float16", regions=OBJECTS
    )
    keys = sorted(scenes)
    index: list[IndexRow] = []
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        remove_file(old)
    for number, first in enumerate(range(0, len(keys), _SHARD_ROWS)):
        own = keys[first : first + _SHARD_ROWS]
        mask = np.zeros((len(own), most), bool)
        values = np.zeros((len(own), *spec.row_shape), np.float16)
        for place, key in enumerate(own):
            for view, thing in enumerate(scenes[key].things):
                assert thing.feature is not None
                mask[place, view], values[place, view, :, 0, 0] = True, features[thing.feature]
        name = f"shard-{number:05d}.h5"
        unit = digest_json(own)
        checksums = write_shard(folder / name, unit=unit, spec=spec, keys=own, view_mask=mask, pyramid=values)
        index += [
            IndexRow(key, name, row, checksum, unit)
            for row, (key, checksum) in enumerate(zip(own, checksums, strict=True))
        ]
    write_index(folder, spec, index)
