"""Canonical digests: the same content has the same digest, whatever file, order of keys or machine it comes from."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["canonical_json", "digest_columns", "digest_file", "digest_json", "digest_table", "remembered"]

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
    return digest_columns(table.schema, table.num_rows, lambda name: table.column(name).chunks)


def digest_columns(schema: pa.Schema, rows: int, chunks: Callable[[str], Iterable[pa.Array]]) -> str:
    """The digest of `digest_table` over columns that need never be in memory whole: chunks(name) starts a column again each time."""
    fields = [field for field in schema if field.name != "path"]
    digest = hashlib.sha256(canonical_json([[field.name, str(field.type)] for field in fields] + [rows]).encode())
    for field in fields:
        _update(digest, field.type, partial(chunks, field.name))
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", kind: pa.DataType, chunks: Callable[[], Iterable[pa.Array]]) -> None:
    """Feed a column's content: which values are null, how long each is (text and lists), and the values that are not null.

    Arrow's own buffers are not canonical: bits of nulls, offsets and unused bytes depend on how an array was made.
    """
    for values in chunks():
        digest.update(np.ascontiguousarray(values.is_valid().to_numpy(zero_copy_only=False)).data)
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        for values in chunks():
            digest.update(pc.list_value_length(values.drop_null()).cast(pa.int64()).to_numpy(zero_copy_only=False).data)
        _update(digest, kind.value_type, lambda: (values.drop_null().flatten() for values in chunks()))
    elif pa.types.is_string(kind):
        for values in chunks():
            digest.update(pc.binary_length(values.drop_null()).cast(pa.int64()).to_numpy(zero_copy_only=False).data)
        for values in chunks():
            digest.update(_text_of(values.drop_null()))
    elif pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        for values in chunks():
            digest.update(np.ascontiguousarray(values.drop_null().to_numpy(zero_copy_only=False)).data)
    else:
        raise TypeError(f"no digest is defined for a column of type {kind}")


def _text_of(values: pa.StringArray) -> memoryview:
    """The UTF-8 bytes of an array without nulls, one text behind the other: the part of its buffer that its offsets mean."""
    _, offsets, data = values.buffers()
    if data is None or not len(values):
        return memoryview(b"")
    bounds = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    return memoryview(data)[int(bounds[0]) : int(bounds[-1])]
