"""One shard of the feature cache: an HDF5 file that is complete or does not exist, and whose every row can be checked.

Layout (schema version 1; rows R, views V = 1 + m, C the sum of the levels' channels, p the pooled side):

    pyramid     (R, V, C, p, p)  float16, float32, or uint16 holding bfloat16 bits; contiguous, so that it can be memory-mapped
    view_mask   (R, V)           bool, true where the view exists; an absent view's values are zero
    image_key   (R,)             64 hexadecimal digits, the sha256 of the image file
    checksum    (R,)             uint64, see `row_checksum`
    attributes  schema_version, complete, unit, and `spec`, a JSON text with the fields of FeatureSpec

HDF5's contiguous layout has no checksum of its own, and a file killed in mid-write can open with rows of zeros: therefore the
temporary name, the rename, and a checksum in every row.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..manifests.errors import StageError
from ..manifests.files import atomic_path

__all__ = ["SCHEMA_VERSION", "STORAGE_DTYPES", "FeatureSpec", "Shard", "ShardError", "check_shard", "row_checksum", "write_shard"]

SCHEMA_VERSION = 1

# bfloat16 has no HDF5 type; its bits are kept as uint16.
STORAGE_DTYPES: dict[str, type[np.generic]] = {"float16": np.float16, "float32": np.float32, "bfloat16": np.uint16}


class ShardError(StageError):
    """A shard is damaged, incomplete or foreign. The message names the file, what is wrong and the remedy."""


@dataclass(frozen=True)
class FeatureSpec:
    """What the numbers of a feature set are; equal specs can be read together.

    levels: channels of each pyramid level, from fine to coarse. pooled: the side p of each level after pooling.
    views: 1 + m. transform: how pixels became the network's input, in words. weights: the digest of the backbone's weights.
    """

    backbone: str
    weights: str
    transform: str
    levels: tuple[int, ...]
    pooled: int
    views: int
    dtype: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "FeatureSpec":
        values = json.loads(text)
        return cls(**{**values, "levels": tuple(values["levels"])})

    @property
    def row_shape(self) -> tuple[int, int, int, int]:
        return (self.views, sum(self.levels), self.pooled, self.pooled)


def row_checksum(key: str, mask: npt.NDArray[np.bool_], pyramid: npt.NDArray[Any]) -> int:
    """The first 8 bytes (little-endian) of the blake2b-64 of key (ascii), view mask (a byte each) and pyramid bytes of one row."""
    digest = hashlib.blake2b(key.encode("ascii"), digest_size=8)
    digest.update(np.ascontiguousarray(mask).data)
    digest.update(np.ascontiguousarray(pyramid).data)
    return int.from_bytes(digest.digest(), "little")


def write_shard(
    path: Path,
    *,
    unit: str,
    spec: FeatureSpec,
    keys: Sequence[str],
    view_mask: npt.NDArray[np.bool_],
    pyramid: npt.NDArray[Any],
) -> list[int]:
    """Commit one shard and return its rows' checksums.

    unit: the digest of the work that made the shard, by which a resumed run knows it again.
    view_mask: (R, V). pyramid: (R, V, C, p, p) in the storage dtype of `spec`.
    """
    if pyramid.shape != (len(keys), *spec.row_shape) or view_mask.shape != (len(keys), spec.views):
        raise ValueError(f"expected rows of {spec.row_shape} for {len(keys)} keys, got {pyramid.shape} and a mask {view_mask.shape}")
    if pyramid.dtype != STORAGE_DTYPES[spec.dtype]:
        raise ValueError(f"expected {spec.dtype} values, got {pyramid.dtype}")
    checksums = [row_checksum(key, mask, row) for key, mask, row in zip(keys, view_mask, pyramid, strict=True)]
    with atomic_path(path) as temporary, h5py.File(temporary, "w", libver="v110") as file:
        # Without times the same content gives the same bytes.
        file.create_dataset("pyramid", data=pyramid, track_times=False)
        file.create_dataset("view_mask", data=view_mask, track_times=False)
        file.create_dataset("image_key", data=np.array(keys, dtype="S64"), track_times=False)
        file.create_dataset("checksum", data=np.array(checksums, dtype=np.uint64), track_times=False)
        file.attrs.update({"schema_version": SCHEMA_VERSION, "unit": unit, "spec": spec.to_json()})
        file.flush()
        file.attrs["complete"] = True
    return checksums


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    """A complete shard's HDF5 file, for a moment. Whatever is wrong with it, then or in the `with` block, is a ShardError."""
    try:
        # Through a Python file HDF5 takes no lock, which some network file systems refuse and a notebook may hold.
        with path.open("rb") as handle, h5py.File(handle, "r") as file:
            if file.attrs["schema_version"] != SCHEMA_VERSION:
                raise ShardError(
                    f"{path} has schema version {file.attrs['schema_version']}, this hmnet-pipe reads {SCHEMA_VERSION}; "
                    "run `hmnet-pipe extract` again"
                )
            if not file.attrs["complete"]:
                raise ValueError("it is not complete")
            yield file
    except FileNotFoundError as error:
        raise ShardError(f"{path} does not exist; run `hmnet-pipe extract` again") from error
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ShardError(f"{path} is damaged ({error}); run `hmnet-pipe extract` again") from error


def check_shard(path: Path) -> None:
    """Raises ShardError where the file is missing, truncated, incomplete or of another schema version; reads nothing of its rows."""
    with _open(path) as file:
        dataset = file["pyramid"].id
        offset = dataset.get_offset()
        if offset is not None and offset + dataset.get_storage_size() > path.stat().st_size:
            raise ValueError("its pyramid ends behind the file")


class Shard:
    """A shard opened for reading: its small datasets in memory, its pyramid as a read-only memory map.

    The HDF5 handle is closed at once, so that a Shard survives fork and holds no HDF5 lock.
    Raises ShardError where the file is missing, truncated, incomplete or of another schema version.
    """

    unit: str
    spec: FeatureSpec
    keys: list[str]
    view_mask: npt.NDArray[np.bool_]  # shape: (R, V)
    checksums: npt.NDArray[np.uint64]  # shape: (R,)
    pyramid: npt.NDArray[Any]  # shape: (R, V, C, p, p)

    def __init__(self, path: Path) -> None:
        self.path = path
        with _open(path) as file:
            self.unit = str(file.attrs["unit"])
            self.spec = FeatureSpec.from_json(file.attrs["spec"])
            self.keys = [key.decode("ascii") for key in file["image_key"][()]]
            self.view_mask = file["view_mask"][()]
            self.checksums = file["checksum"][()]
            dataset = file["pyramid"]
            offset, shape, dtype = dataset.id.get_offset(), dataset.shape, dataset.dtype
            rows = len(self.keys)
            if shape != (rows, *self.spec.row_shape) or dtype != STORAGE_DTYPES[self.spec.dtype]:
                raise ValueError(f"its pyramid is {shape} {dtype}, not what its own attributes say")
            if self.view_mask.shape != (rows, self.spec.views) or self.checksums.shape != (rows,):
                raise ValueError("its datasets have unequal numbers of rows")
            if rows == 0:
                self.pyramid = np.zeros(shape, dtype)
            elif offset is None:
                raise ValueError("its pyramid is not contiguous")
            else:
                self.pyramid = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)

    def damaged_rows(self) -> list[int]:
        """The rows whose content does not match their checksum; reads every byte."""
        rows = zip(self.keys, self.view_mask, self.pyramid, self.checksums, strict=True)
        return [row for row, (key, mask, values, stored) in enumerate(rows) if row_checksum(key, mask, values) != int(stored)]
