"""The feature cache as its readers see it: image key in, pyramid and view mask out.

    cache = FeatureCache(Path("runs/twitter2015/features"))
    pyramid, view_mask = cache.gather([key_a, None, key_b])

`index.parquet`, committed after the shards, says which rows exist; its metadata holds the FeatureSpec. A
shard that the index does not name is not part of the cache.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..manifests.errors import StageError
from ..manifests.files import atomic_path
from ..manifests.fingerprint import canonical_json
from ..manifests.machine import usable_memory
from .shards import Rows, Shard, ShardError, check_shard, read_at_random, read_soon
from .spec import STORAGE_DTYPES, FeatureSpec, as_numbers

__all__ = ["FeatureCache", "IndexRow", "read_index", "write_index"]

_INDEX = pa.schema(
    [
        pa.field("image_key", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("row", pa.int32()),
        pa.field("checksum", pa.uint64()),
        pa.field("inputs", pa.string()),
    ]
)


@dataclass(frozen=True)
class IndexRow:
    """Where an image's features lie. inputs: the digest of whatever else they were made from (the boxes)."""

    image_key: str
    shard: str
    row: int
    checksum: int
    inputs: str


def write_index(folder: Path, spec: FeatureSpec, rows: Iterable[IndexRow]) -> None:
    """Commit the index, sorted by image key: from here on the cache holds exactly these rows."""
    ordered = [vars(row) for row in sorted(rows, key=lambda row: row.image_key)]
    table = pa.Table.from_pylist(
        ordered, schema=_INDEX.with_metadata({"spec": json.dumps(spec.to_json(), sort_keys=True)})
    )
    with atomic_path(folder / "index.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_index(folder: Path) -> tuple[FeatureSpec, list[IndexRow]]:
    """Return the committed index of the cache in `folder`.

    Raises StageError where there is none or it cannot be read.
    """
    spec, table = _read_index(folder)
    return spec, [IndexRow(**row) for row in table.to_pylist()]


def _read_index(folder: Path, columns: Sequence[str] | None = None) -> tuple[FeatureSpec, pa.Table]:
    """Return the index as a table of `columns`, which costs less than a million objects."""
    path = folder / "index.parquet"
    if not path.is_file():
        raise StageError(f"{path} does not exist; run `hmnet-pipe extract` first")
    try:
        table = pq.read_table(path, columns=columns)
        if wrong := [name for name in table.schema.names if table.schema.field(name) != _INDEX.field(name)]:
            raise ValueError(f"its column {wrong[0]} is not of type {_INDEX.field(wrong[0]).type}")
        if missing := set(columns or _INDEX.names) - set(table.schema.names):
            raise ValueError(f"it has no column {min(missing)}")
        return FeatureSpec.from_json(json.loads(table.schema.metadata[b"spec"])), table
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
        raise StageError(
            f"{path} is damaged ({error}); delete it and run `hmnet-pipe extract` again"
        ) from error


class FeatureCache:
    """Random access to cached pyramids, opened lazily in the process that reads.

    Safe under fork (no handle stays open, in either layout), under spawn (it is pickled as its path) and in
    notebooks.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.spec, self._index = _read_index(self.folder, ["image_key", "shard", "row", "checksum"])
        # Rows and view masks of the shards that were opened.
        self._shards: dict[str, tuple[Rows, npt.NDArray[np.bool_]]] = {}

    @cached_property
    def _places(self) -> dict[str | None, tuple[str, int]]:
        """Return (shard, row) by image key.

        A million images take a second and 300 MB, so only a reader of features builds this.
        """
        keys, shards, rows = (self._index.column(name).to_pylist() for name in ("image_key", "shard", "row"))
        names = {name: name for name in self._counts}  # one string for all the images of a shard
        return dict(zip(keys, zip(map(names.__getitem__, shards), rows, strict=True), strict=True))

    @cached_property
    def _counts(self) -> dict[str, int]:
        """Return the number of images that the index has in each shard."""
        return {
            item["values"]: item["counts"]
            for item in pc.value_counts(self._index.column("shard")).to_pylist()
        }

    def __reduce__(self) -> tuple[type["FeatureCache"], tuple[Path]]:
        return (FeatureCache, (self.folder,))

    def __len__(self) -> int:
        return int(self._index.num_rows)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._index.column("image_key").to_pylist())

    def digest(self) -> str:
        """Return the digest of the features' identity and contents (their checksums), in whatever shards."""
        # The identity is a string inside the JSON, as it always was.
        identity = json.dumps(self.spec.identity, sort_keys=True)
        digest = hashlib.sha256(f"[{canonical_json(identity)},[".encode())
        separator = b""
        for batch in self._index.to_batches(max_chunksize=2**16):
            for text in _canonical_pairs(batch.column("image_key"), batch.column("checksum")):
                digest.update(separator + text)
                separator = b","
        digest.update(b"]]")
        return digest.hexdigest()

    def keys(self) -> pa.ChunkedArray:
        """Return the image keys, in their order."""
        return self._index.column("image_key")

    def shards(self) -> list[str]:
        """Return the names of the shards that the index refers to."""
        return sorted(pc.unique(self._index.column("shard")).to_pylist())

    def check(self) -> None:
        """Raise ShardError where a shard is not the one that the index promises; reads no features.

        Whoever reads features would be refused over such a shard, so its set is not up to date.
        """
        shards = self._index.column("shard").combine_chunks().dictionary_encode()
        codes, rows = shards.indices.to_numpy(), self._index.column("row").to_numpy()
        promised = self._index.column("checksum").to_numpy()
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(shards.dictionary) + 1))
        for number, name in enumerate(shards.dictionary.to_pylist()):
            own = order[bounds[number] : bounds[number + 1]]
            spec, there = check_shard(self.folder / name)
            self._check_spec(self.folder / name, spec)
            if rows[own].max() >= len(there) or (there[rows[own]] != promised[own]).any():
                raise _other_rows(self.folder / name)

    @cached_property
    def _exceeds_memory(self) -> bool:
        """Return whether the features may not stay in memory, so that rows are read from the disk again.

        Then a batch's rows are asked for at once. Where they are there already, that would take a fifth of
        the time of copying them.
        """
        row_bytes = np.dtype(STORAGE_DTYPES[self.spec.dtype]).itemsize * math.prod(self.spec.row_shape)
        return len(self) * row_bytes > usable_memory() / 2

    def gather(self, keys: Sequence[str | None]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return a batch's pyramids (B, V, C, p, p) and view mask (B, V).

        Pyramids have their storage dtype, or float32 for bfloat16. A key that is None or not in the cache
        gives zeros and an all-false mask. Raises ShardError where a shard is damaged.
        """
        # Not zeroed: filling what is overwritten a moment later would cost as much as reading it.
        pyramid = np.empty((len(keys), *self.spec.row_shape), STORAGE_DTYPES[self.spec.dtype])
        raw = pyramid.reshape(len(keys), math.prod(self.spec.row_shape)).view(np.uint8)
        view_mask = np.zeros((len(keys), self.spec.views), np.bool_)
        places = [self._places.get(key) for key in keys]
        if self._exceeds_memory:
            for name, row in filter(None, places):
                read_soon((self._shards.get(name) or self._open(name))[0], row)
        for position, place in enumerate(places):
            if place is None:
                raw[position] = 0
            else:
                rows, masks = self._shards.get(place[0]) or self._open(place[0])
                raw[position], view_mask[position] = rows[place[1]], masks[place[1]]
        return as_numbers(pyramid, self.spec.dtype), view_mask

    def _open(self, name: str) -> tuple[Rows, npt.NDArray[np.bool_]]:
        """Return the rows and view masks of the shard `name`.

        Before that, check that the shard holds every image that the index has in it, in its place.
        """
        shard = Shard(self.folder / name)
        self._check_spec(shard.path, shard.spec)
        if (
            sum(self._places.get(key) == (name, row) for row, key in enumerate(shard.keys))
            != self._counts[name]
        ):
            raise _other_rows(shard.path)
        if self._exceeds_memory:
            read_at_random(shard.rows)
        self._shards[name] = shard.rows, shard.view_mask
        return self._shards[name]

    def _check_spec(self, path: Path, spec: FeatureSpec) -> None:
        if spec != self.spec:
            raise ShardError(
                f"{path} belongs to another feature set ({spec.difference(self.spec)}); "
                "run `hmnet-pipe extract` again"
            )


def _other_rows(path: Path) -> ShardError:
    return ShardError(
        f"{path} does not hold the images that the index has in it; run `hmnet-pipe extract` again"
    )


def _canonical_pairs(keys: pa.StringArray, checksums: pa.UInt64Array) -> Iterator[bytes]:
    """Yield the canonical JSON of each [key, checksum].

    It is one string where no key needs an escape (a sha256 never does).
    """
    if pc.all(pc.match_substring_regex(keys, r"^[0-9A-Za-z_-]*$")).as_py():
        pairs = pc.binary_join_element_wise('["', keys, '",', pc.cast(checksums, pa.string()), "]", "")
        if len(pairs):
            yield ",".join(pairs.to_pylist()).encode()
    else:
        yield from (
            canonical_json(list(pair)).encode()
            for pair in zip(keys.to_pylist(), checksums.to_pylist(), strict=True)
        )
