"""Canonical digests: the same content has the same digest, whatever file, order of keys or machine it comes from."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

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
    """The sha256 of a table's schema and rows, in the order of its rows; chunks, encodings and file metadata do not matter.

    A column `path` is left out: where a thing lies is no part of what it is.
    """
    table = table.drop_columns([name for name in table.schema.names if name == "path"])
    digest = hashlib.sha256(canonical_json([[field.name, str(field.type)] for field in table.schema]).encode())
    # One canonical line a row: slower than hashing Arrow buffers, whose validity bits and offsets depend on how a table was made.
    for batch in table.to_batches(max_chunksize=65536):
        digest.update("\n".join(canonical_json(row) for row in batch.to_pylist()).encode())
        digest.update(b"\n")
    return digest.hexdigest()
