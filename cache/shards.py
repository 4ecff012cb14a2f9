"""One shard of the feature cache: an HDF5 file, complete or not there, with a checksum in every row.

Layout (schema version 1; rows R, views V, C the sum of the levels' channels, p the pooled side):

    pyramid     (R, V, C, p, p)  float16, float32, or uint16 holding bfloat16 bits; contiguous, so that it
                                 can be memory-mapped, or, in the archive layout, compressed row by row
    view_mask   (R, V)           bool, true where the view exists; an absent view's values are zero
    image_key   (R,)             64 hexadecimal digits, the sha256 of the image file
    checksum    (R,)             uint64, see `row_checksum`
    attributes  schema_version, complete, unit, and `spec`, a JSON text with the fields of FeatureSpec

HDF5's contiguous layout has no checksum of its own, and a file killed in mid-write can open with rows of
zeros. This is why there are a temporary name, a rename, and a checksum in every row. The checksum is over
content: a shard is the same shard in either layout.
"""

import ctypes
import hashlib
import json
import math
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..manifests.errors import StageError
from ..manifests.files import atomic_path
from .archive import ArchivedRows, archive_layout, filters
from .spec import STORAGE_DTYPES, FeatureSpec

__all__ = [
    "SCHEMA_VERSION",
    "Rows",
    "Shard",
    "ShardError",
    "check_shard",
    "read_at_random",
    "read_soon",
    "rewrite_shard",
    "row_checksum",
    "write_shard",
]

SCHEMA_VERSION = 1

# Where the features begin in a file that is mapped: at a multiple of 64, as batches do in memory. Elsewhere a
# batch may lie one byte behind a row within its page, which some processors copy six times as slowly.
_ALIGNED = {"alignment_threshold": 2**16, "alignment_interval": 64}

# What HDF5 and h5py raise when a file is not as it should be.
_FAULTS = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError)


class ShardError(StageError):
    """A shard is damaged, incomplete or foreign. The message names the file, what is wrong and the remedy."""


def row_checksum(key: str, mask: npt.NDArray[np.bool_], pyramid: npt.NDArray[Any]) -> int:
    """Return the checksum of a row: its key (ascii), view mask (a byte each) and pyramid.

    It is the blake2b-64 of these bytes as a little-endian integer.
    """
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
        raise ValueError(
            f"expected rows of {spec.row_shape} for {len(keys)} keys, "
            f"got {pyramid.shape} and a mask {view_mask.shape}"
        )
    if pyramid.dtype != STORAGE_DTYPES[spec.dtype]:
        raise ValueError(f"expected {spec.dtype} values, got {pyramid.dtype}")
    checksums = [
        row_checksum(key, mask, row) for key, mask, row in zip(keys, view_mask, pyramid, strict=True)
    ]
    with atomic_path(path) as temporary:
        _write(temporary, unit, spec, keys, view_mask, checksums, pyramid, {})
    return checksums


def rewrite_shard(path: Path, *, archived: bool) -> bool:
    """Rewrite a shard in the archive layout or the contiguous one. Return whether its layout changed.

    A kill at any moment leaves it whole in one of the two. Raises ShardError where it is damaged: otherwise
    its rows would be given checksums that hide the damage.
    """
    shard = Shard(path)
    if shard.archived == archived or not shard.keys:
        return False
    checksums = shard.checksums.tolist()
    if damaged := shard.damaged_rows():
        raise ShardError(
            f"{path} is damaged (row {damaged[0]} does not match its checksum); "
            "run `hmnet-pipe verify --fix` first"
        )
    with atomic_path(path) as temporary:
        layout = archive_layout(path, shard.spec) if archived else {}
        _write(
            temporary, shard.unit, shard.spec, shard.keys, shard.view_mask, checksums, shard.pyramid, layout
        )
        if Shard(temporary).damaged_rows():  # read back, since the only other copy is about to go
            raise ShardError(
                f"{path} could not be rewritten: what was read back differs; "
                "it is left as it was, so check the disk"
            )
    return True


def _write(
    path: Path,
    unit: str,
    spec: FeatureSpec,
    keys: Sequence[str],
    view_mask: npt.NDArray[np.bool_],
    checksums: Sequence[int],
    pyramid: npt.NDArray[Any],
    layout: dict[str, Any],
) -> None:
    """Write a shard's file. layout: how h5py is to store the pyramid; empty for the contiguous layout."""
    # In memory first: HDF5 may crash its process when it closes a file for which the disk has no room.
    content = BytesIO()
    aligned = {} if layout else _ALIGNED
    with h5py.File(content, "w", libver="v110", **aligned) as file:
        # Without times, the same content gives the same bytes.
        file.create_dataset("pyramid", data=pyramid, track_times=False, **layout)
        file.create_dataset("view_mask", data=view_mask, track_times=False)
        file.create_dataset("image_key", data=np.array(keys, dtype="S64"), track_times=False)
        file.create_dataset("checksum", data=np.array(checksums, dtype=np.uint64), track_times=False)
        file.attrs.update(
            {
                "schema_version": SCHEMA_VERSION,
                "unit": unit,
                "spec": json.dumps(spec.to_json(), sort_keys=True),
            }
        )
        file.flush()
        file.attrs["complete"] = True
    path.write_bytes(content.getbuffer())


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    """Open a complete shard's HDF5 file for a moment.

    Whatever is wrong with it, then or in the `with` block, is a ShardError.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a regular file")  # a pipe would be waited for
        # HDF5 takes no lock on a Python file; some network file systems refuse locks, and a notebook may hold
        # one.
        with path.open("rb") as handle, h5py.File(handle, "r") as file:
            if file.attrs["schema_version"] != SCHEMA_VERSION:
                raise ShardError(
                    f"{path} has schema version {file.attrs['schema_version']}, and this hmnet-pipe reads "
                    f"{SCHEMA_VERSION}; run `hmnet-pipe extract` again"
                )
            if not file.attrs["complete"]:
                raise ValueError("it is not complete")
            yield file
    except FileNotFoundError as error:
        raise ShardError(f"{path} does not exist; run `hmnet-pipe extract` again") from error
    except _FAULTS as error:
        raise ShardError(f"{path} is damaged ({error}); run `hmnet-pipe extract` again") from error


def check_shard(path: Path) -> tuple[FeatureSpec, npt.NDArray[np.uint64]]:
    """Return the spec of a shard and the checksums that its rows ought to have; reads none of the rows.

    Raises ShardError where the file is missing, truncated, incomplete or of another schema version.
    """
    with _open(path) as file:
        dataset = file["pyramid"].id
        offset = dataset.get_offset()
        if offset is not None and offset + dataset.get_storage_size() > path.stat().st_size:
            raise ValueError("its pyramid ends behind the file")
        return FeatureSpec.from_json(json.loads(file.attrs["spec"])), file["checksum"][()]


Rows = npt.NDArray[np.uint8] | ArchivedRows


class Shard:
    """A shard opened for reading: its small datasets in memory, its pyramid as a read-only memory map.

    In the archive layout the pyramid is read row by row from the file. No handle stays open: a Shard survives
    fork, holds no HDF5 lock, and thousands of them use no file descriptor. Raises ShardError where the file
    is missing, truncated, incomplete or of another schema version, and ArchiveError where it is compressed
    and hdf5plugin is not installed.
    """

    unit: str
    spec: FeatureSpec
    keys: list[str]
    view_mask: npt.NDArray[np.bool_]  # shape: (R, V)
    checksums: npt.NDArray[np.uint64]  # shape: (R,)
    # rows[i] is the raw bytes of row i: floats are unaligned in the file, and numpy copies those slowly.
    rows: Rows

    def __init__(self, path: Path) -> None:
        self.path = path
        with _open(path) as file:
            self.unit = str(file.attrs["unit"])
            self.spec = FeatureSpec.from_json(json.loads(file.attrs["spec"]))
            self.keys = [key.decode("ascii") for key in file["image_key"][()]]
            self.view_mask = file["view_mask"][()]
            self.checksums = file["checksum"][()]
            dataset = file["pyramid"]
            offset, shape, dtype = dataset.id.get_offset(), dataset.shape, dataset.dtype
            rows, row_bytes = len(self.keys), dtype.itemsize * math.prod(shape[1:])
            if shape != (rows, *self.spec.row_shape) or dtype != STORAGE_DTYPES[self.spec.dtype]:
                raise ValueError(f"its pyramid is {shape} {dtype}, not what its own attributes say")
            if self.view_mask.shape != (rows, self.spec.views) or self.checksums.shape != (rows,):
                raise ValueError("its datasets have unequal numbers of rows")
            if dataset.chunks is not None:
                filters(path)
                self.rows = ArchivedRows(path, _open)
            elif rows == 0:
                self.rows = np.zeros((0, row_bytes), np.uint8)
            elif offset is None:
                raise ValueError("its pyramid is neither contiguous nor chunked")
            else:
                self.rows = _map(path, offset, rows * row_bytes).reshape(rows, row_bytes)

    @property
    def archived(self) -> bool:
        """Return whether it is in the archive layout."""
        return isinstance(self.rows, ArchivedRows)

    @property
    def pyramid(self) -> npt.NDArray[Any]:
        """Return every row, (R, V, C, p, p) in the storage dtype; an archive's are read and decompressed."""
        with self._all_rows() as rows:
            return (
                np.asarray(rows[:])
                .view(STORAGE_DTYPES[self.spec.dtype])
                .reshape(len(self.keys), *self.spec.row_shape)
            )

    @contextmanager
    def _all_rows(self) -> Iterator[Any]:
        """Yield `rows`, or for an archive the pyramid of a file that is opened once for all rows."""
        if isinstance(self.rows, ArchivedRows):
            with _open(self.path) as file:
                yield file["pyramid"]
        else:
            yield self.rows

    def damaged_rows(self) -> list[int]:
        """Read every byte; return the rows that do not match their checksum or cannot be decompressed."""
        damaged = []
        with self._all_rows() as rows:
            for number, (key, mask, stored) in enumerate(
                zip(self.keys, self.view_mask, self.checksums, strict=True)
            ):
                try:
                    if row_checksum(key, mask, rows[number]) != int(stored):
                        damaged.append(number)
                except _FAULTS:
                    damaged.append(number)
        return damaged


def _map(path: Path, offset: int, size: int) -> npt.NDArray[np.uint8]:
    """Return a part of a file as a read-only array of bytes in mapped memory.

    Arrow's map outlives its file. numpy's (and Python's, before 3.13) keeps a file descriptor, of which a
    process commonly has 1024: too few for the shards of 300,000 images.
    """
    with pa.memory_map(str(path)) as file:
        file.seek(offset)
        buffer = file.read_buffer(size)
    if buffer.size != size:
        raise ValueError("its pyramid ends behind the file")
    return np.frombuffer(buffer, np.uint8)


def read_at_random(rows: Rows) -> None:
    """Tell the system that rows will be read in no order, each after `read_soon`.

    Otherwise it reads what lies around each row too, on some file systems megabytes, for which others then
    have to go where memory is short.
    """
    if isinstance(rows, np.ndarray) and rows.size:
        _advise(rows.ctypes.data, rows.nbytes, "MADV_RANDOM")


def read_soon(rows: Rows, row: int) -> None:
    """Ask the system to read a row, without waiting for it."""
    if isinstance(rows, np.ndarray):
        _advise(rows[row].ctypes.data, rows.shape[1], "MADV_WILLNEED")


def _advise(address: int, size: int, advice: str) -> int:
    """Advise the system about mapped memory. Return 0 where it was heard; it changes speed alone."""
    known = getattr(mmap, advice, None)
    if known is None:
        return -1
    start = address - address % mmap.PAGESIZE
    result: int = _madvise()(start, address + size - start, known)
    return result


@cache
def _madvise() -> Any:
    # Python's own way to it, mmap.madvise, keeps a file descriptor for each shard.
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
