"""Canonical digests: equal content has an equal digest, whatever its file, order of keys or machine."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .files import check_regular

__all__ = [
    "ADDED",
    "NOT_DIGESTED",
    "SETTLING_NS",
    "canonical_json",
    "digest_batches",
    "digest_file",
    "digest_json",
    "digest_table",
    "digested",
    "is_settled",
    "remembered",
]

NOT_DIGESTED: Mapping[str, str] = {"digest": "no"}
"""The metadata of a schema's field that `digest_table` leaves out."""

ADDED: Mapping[str, str] = {**NOT_DIGESTED, "absent": "null"}
"""The metadata of a field that files of before lack. It is read as null, and in no digest: theirs stays."""

SETTLING_NS = 2_000_000_000
"""How long a file may be written again without a change of its times: file systems' clocks tick coarsely."""


def canonical_json(value: Any) -> str:
    """Return `value` as JSON without white space or NaN, keys sorted, so that equal values give equal text.

    Raises TypeError for a value that JSON cannot hold and ValueError for NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_json(value: Mapping[str, Any] | list[Any]) -> str:
    """Return the sha256 (64 hexadecimal digits) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def is_settled(status: os.stat_result, now: int, settling_ns: int = SETTLING_NS) -> bool:
    """Return whether a later write must change a file's times; `now` (ns) is before `status` was read."""
    return now - max(status.st_mtime_ns, status.st_ctime_ns) >= settling_ns


def remembered(
    function: Callable[..., str], path: Path, *arguments: Any, settling_ns: int = SETTLING_NS
) -> str:
    """Return function(path, *arguments), called once in a process for each state of the file.

    A state is the file's device, inode, size and both its times: no copy and no `touch` can set the time of
    the last change of status. A file that has not settled is not remembered. Nothing is kept from one process
    to the next, so that a wrong belief cannot outlive its command.
    """
    now, status = time.time_ns(), path.stat()
    if not is_settled(status, now, settling_ns):
        return function(path, *arguments)
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return _remembered(function, path, state, *arguments)


@lru_cache(maxsize=256)
def _remembered(function: Callable[..., str], path: Path, state: tuple[int, ...], *arguments: Any) -> str:
    return function(path, *arguments)


def digest_file(path: Path, *, settling_ns: int = SETTLING_NS) -> str:
    """Return the sha256 of a file's bytes; see `remembered`. Raises OSError where it is no regular file."""
    check_regular(path)
    return remembered(_digest_bytes, path, settling_ns=settling_ns)


def _digest_bytes(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digested(schema: pa.Schema) -> pa.Schema:
    """Return `schema` without the fields that are marked NOT_DIGESTED."""
    [(name, value)] = NOT_DIGESTED.items()
    return pa.schema(
        [field for field in schema if (field.metadata or {}).get(name.encode()) != value.encode()]
    )


def digest_table(table: pa.Table) -> str:
    """Return the sha256 of a table's schema and rows, in their order, without fields marked NOT_DIGESTED.

    Chunks, slices, encodings and file metadata do not matter.
    """
    return digest_batches(digested(table.schema), table.num_rows, table.to_batches())


def digest_batches(schema: pa.Schema, rows: int, batches: Iterable[pa.RecordBatch]) -> str:
    """Return the digest of the columns of `schema` in a table of `rows` rows, which is given in parts."""
    columns = {field.name: _ColumnDigest(field.type) for field in schema}
    for batch in batches:
        for name, column in columns.items():
            column.update(batch.column(name))
    return digest_json(
        [[[name, str(schema.field(name).type), column.parts()] for name, column in columns.items()], rows]
    )


class _ColumnDigest:
    """The content of a column: which values are null, their lengths (text and lists), and the others' bytes.

    Arrow's own buffers are not canonical: bits of nulls, offsets and unused bytes depend on how an array was
    made. Each of the three has a digest of its own, so that a column is read once.
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
        """Return the digest of each part; those of a list's items come last."""
        own = [part.hexdigest() for part in (self._nulls, self._lengths, self._content)]
        return own + (self._items.parts() if self._items is not None else [])


def _text_of(values: pa.StringArray) -> memoryview:
    """Return the UTF-8 bytes of an array without nulls: the part of its buffer between its offsets."""
    _, offsets, data = values.buffers()
    if data is None or not len(values):
        return memoryview(b"")
    bounds = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    return memoryview(data)[int(bounds[0]) : int(bounds[-1])]
