"""The features of the objects of the user's scene graphs, read row by row, and kept with the scenes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from ...manifests.errors import InputError
from ...manifests.files import atomic_path, reason_of

__all__ = ["NAME", "ObjectFeatures", "open_features", "write_features"]

NAME = "object_features"
"""The array (rows, D) in a safetensors or HDF5 file."""


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


def write_features(path: Path, features: ObjectFeatures, rows: list[int]) -> None:
    """Write these rows as float16, (rows, D), to the .npy file `path`, one at a time."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        shape = (len(rows), features.shape[1])
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for row in rows:
            file.write(features[row].tobytes())
