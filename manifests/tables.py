"""The tables that stages pass to one another: their schemas, and the only functions that read and write them.

Every table is one parquet file with a fixed pyarrow schema, written atomically; pandas opens each of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .errors import StageError
from .files import atomic_path
from .fingerprint import digest_batches, remembered
from .schemas import (
    IMAGES,
)

__all__ = [
    "any_usable",
    "read_batches",
    "read_table",
    "sound_digests",
    "table_digest",
    "table_of",
    "usable_images",
    "write_table",
]

# Tables need not be in memory whole: how many rows are read at a time, and how many lie together in a file, where every column of them
# takes a few MB of who reads.
_BATCH_ROWS = 2**14
_GROUP_ROWS = 2**17


def table_of(schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """A table of `rows` with exactly the columns of `schema`; a missing value is null, an unknown key an error."""
    rows = list(rows)
    for row in rows:
        if unknown := set(row) - set(schema.names):
            raise KeyError(f"no column {sorted(unknown)} in the schema {schema.names}")
    return pa.Table.from_pylist(rows, schema=schema)


def write_table(path: Path, table: pa.Table) -> None:
    """Write `table` to the parquet file `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, row_group_size=_GROUP_ROWS, compression="zstd")


def read_table(
    path: Path, schema: pa.Schema, made_by: str = "", columns: Sequence[str] | None = None
) -> pa.Table:
    """Read the parquet file `path`, which must have `schema`; of `columns`, only these. `made_by` names the command that makes it.

    Raises StageError where the file is missing, is not parquet or has other columns.
    """
    _check_schema(path, schema, made_by)
    with _parquet_errors(path):
        return pq.read_table(path, columns=columns)


def read_batches(
    path: Path, schema: pa.Schema, made_by: str = "", columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """What `read_table` gives, in parts, for who wants to hold something smaller of each."""
    _check_schema(path, schema, made_by)
    with _open_parquet(path) as file:
        yield from _batches(file, columns)


def _check_schema(path: Path, schema: pa.Schema, made_by: str) -> None:
    remedy = f"; run `hmnet-pipe {made_by}` first" if made_by else ""
    if not path.is_file():
        raise StageError(f"{path} does not exist{remedy}")
    with _parquet_errors(path):
        found = pq.read_schema(path)
    if not found.equals(schema):
        raise StageError(
            f"{path} has the columns {found.names}, expected {schema.names}; delete it and run its stage again"
        )


@contextmanager
def _open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """A file to be read in parts."""
    # Pages are read as they are needed: without a buffer's size a column's whole row group would be.
    with _parquet_errors(path), pq.ParquetFile(path, buffer_size=2**20) as file:
        yield file


def _batches(file: pq.ParquetFile, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    # Group by group: what arrow keeps of each would else be kept until the last.
    for group in range(file.num_row_groups):
        yield from file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns)


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise StageError(
            f"{path} cannot be read as a parquet table ({error}); delete it and run its stage again"
        ) from error


def usable_images(path: Path) -> pa.Table:
    """The columns key and path of the images table `path`, of every image that a stage can use, in the order of the keys."""
    batches = read_batches(path, IMAGES, "prepare", ["key", "path", "status"])
    parts = [
        batch.filter(pc.equal(batch.column("status"), "ok")).select(["key", "path"]) for batch in batches
    ]
    return pa.Table.from_batches(parts, pa.schema([IMAGES.field("key"), IMAGES.field("path")]))


def any_usable(path: Path) -> bool:
    """Whether the images table `path` holds an image that a stage can use."""
    return bool(
        pc.any(pc.equal(read_table(path, IMAGES, "prepare", ["status"]).column("status"), "ok")).as_py()
    )


def table_digest(path: Path, schema: pa.Schema, made_by: str = "") -> str:
    """The digest of the table that `read_table` would give, without ever holding more than a part of one column; see `remembered`.

    Raises StageError as `read_table` does.
    """
    _check_schema(path, schema, made_by)
    return remembered(_parquet_digest, path)


def _parquet_digest(path: Path) -> str:
    with _open_parquet(path) as file:
        return digest_batches(file.schema_arrow, file.metadata.num_rows, _batches(file))


def sound_digests(tables: Mapping[str, tuple[Path, pa.Schema]]) -> dict[str, str]:
    """The content digest of each named (path, schema); a table that is missing, damaged or has other columns is left out."""
    found: dict[str, str] = {}
    for name, (path, schema) in tables.items():
        with suppress(StageError):
            found[name] = table_digest(path, schema)
    return found
