"""Canonical digests: the same content has the same digest, whatever file, order of keys or machine it comes from."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["canonical_json", "digest_file", "digest_json", "digest_table"]


def canonical_json(value: Any) -> str:
    """`value` as JSON with sorted keys, no white space and no NaN, so that equal values give equal text.

    Raises TypeError for a value that JSON does not hold and ValueError for NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_json(value: Mapping[str, Any] | list[Any]) -> str:
    """The sha256 (64 hexadecimal digits) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """The sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_table(table: pa.Table) -> str:
    """The sha256 of a table's schema and rows, in the order of its rows; chunks, slices, encodings and file metadata do not matter.

    A column `path` is left out: where a thing lies is no part of what it is.
    """
    table = table.drop_columns([name for name in table.schema.names if name == "path"])
    digest = hashlib.sha256(canonical_json([[field.name, str(field.type)] for field in table.schema] + [table.num_rows]).encode())
    for column in table.columns:
        _update(digest, column.combine_chunks())
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", values: pa.Array) -> None:
    """Feed an array's content: which values are null, how long each is (text and lists), and the values that are not null.

    Arrow's own buffers are not canonical: bits of nulls, offsets and unused bytes depend on how an array was made.
    """
    if isinstance(values, pa.ChunkedArray):  # a column without any chunk
        values = pa.array([], values.type)
    digest.update(np.ascontiguousarray(values.is_valid().to_numpy(zero_copy_only=False)).data)
    values = values.drop_null()
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        digest.update(pc.list_value_length(values).cast(pa.int64()).to_numpy(zero_copy_only=False).data)
        _update(digest, values.flatten())
    elif pa.types.is_string(kind):
        digest.update(pc.binary_length(values).cast(pa.int64()).to_numpy(zero_copy_only=False).data)
        if len(values):
            digest.update("".join(values.to_pylist()).encode())
    elif pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        digest.update(np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).data)
    else:
        raise TypeError(f"no digest is defined for a column of type {kind}")
