"""Canonical digests: the same content has the same digest, whatever file, order of keys or machine it comes from."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["canonical_json", "digest_batches", "digest_file", "digest_json", "digest_table", "remembered"]

_SETTLED_NS = 2_000_000_000


def canonical_json(value: Any) -> str:
    """`value` as JSON with sorted keys, no white space and no NaN, so that equal values give equal text.

    Raises TypeError for a value that JSON does not hold and ValueError for NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_json(value: Mapping[str, Any] | list[Any]) -> str:
    """The sha256 (64 hexadecimal digits) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def remembered(function: Callable[..., str], path: Path, *arguments: Any) -> str:
    """function(path, *arguments), once a process for each state of the file.

    A state is the file's device, inode, size and both its times: unlike that of the last modification, the time of the last change of
    status can be set by no copy and no `touch`. A file written a moment ago is not remembered, since the ticks of its times are coarse.
    Nothing is kept from one process to the next, so that a wrong belief cannot outlive its command.
    """
    now, status = time.time_ns(), path.stat()
    if now - max(status.st_mtime_ns, status.st_ctime_ns) < _SETTLED_NS:
        return function(path, *arguments)
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return _remembered(function, path, state, *arguments)


@lru_cache(maxsize=256)
def _remembered(function: Callable[..., str], path: Path, state: tuple[int, ...], *arguments: Any) -> str:
    return function(path, *arguments)


def digest_file(path: Path) -> str:
    """The sha256 of a file's bytes; see `remembered`."""
    return remembered(_digest_bytes, path)


def _digest_bytes(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_table(table: pa.Table) -> str:
    """The sha256 of a table's schema and rows, in the order of its rows; chunks, slices, encodings and file metadata do not matter.

    A column `path` is left out: where a thing lies is no part of what it is.
    """
    return digest_batches(table.schema, table.num_rows, table.to_batches())


def digest_batches(schema: pa.Schema, rows: int, batches: Iterable[pa.RecordBatch]) -> str:
    """The digest of `digest_table` over a table in parts, of which one at a time need be in memory."""
    columns = {field.name: _ColumnDigest(field.type) for field in schema if field.name != "path"}
    for batch in batches:
        for name, column in columns.items():
            column.update(batch.column(name))
    return digest_json(
        [[[name, str(schema.field(name).type), column.parts()] for name, column in columns.items()], rows]
    )


class _ColumnDigest:
    """The content of a column, part by part: which values are null, how long each is (text and lists), and the values that are not null.

    Arrow's own buffers are not canonical: bits of nulls, offsets and unused bytes depend on how an array was made. Each part has a digest
    of its own, so that a column is read once.
    """

    def __init__(self, kind: pa.DataType) -> None:
        self._nulls, self._lengths, self._content = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        nested = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
        self._items = _ColumnDigest(kind.value_type) if nested else None
        self._is_text = pa.types.is_string(kind)
        if not (
            nested
            or self._is_text
            or pa.types.is_boolean(kind)
            or pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
        ):
            raise TypeError(f"no digest is defined for a column of type {kind}")

    def update(self, values: pa.Array) -> None:
        self._nulls.update(np.ascontiguousarray(values.is_valid().to_numpy(zero_copy_only=False)).data)
        values = values.drop_null()
        if self._items is not None:
            self._lengths.update(
                pc.list_value_length(values).cast(pa.int64()).to_numpy(zero_copy_only=False).data
            )
            self._items.update(values.flatten())
        elif self._is_text:
            self._lengths.update(
                pc.binary_length(values).cast(pa.int64()).to_numpy(zero_copy_only=False).data
            )
            self._content.update(_text_of(values))
        else:
            self._content.update(np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).data)

    def parts(self) -> list[str]:
        """The digest of every part, of a list's items last."""
        own = [part.hexdigest() for part in (self._nulls, self._lengths, self._content)]
        return own + (self._items.parts() if self._items is not None else [])


def _text_of(values: pa.StringArray) -> memoryview:
    """The UTF-8 bytes of an array without nulls, one text behind the other: the part of its buffer that its offsets mean."""
    _, offsets, data = values.buffers()
    if data is None or not len(values):
        return memoryview(b"")
    bounds = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    return memoryview(data)[int(bounds[0]) : int(bounds[-1])]
