"""Reading, writing and digesting the tables that stages pass to one another; nothing else opens these files.

Every table is one parquet file with a fixed schema (manifests.schemas), written atomically; pandas opens each
of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .advice import typed
from .errors import StageError
from .files import atomic_path
from .fingerprint import ADDED, digest_batches, digested, remembered
from .schemas import IMAGES

__all__ = [
    "GROUP_ROWS",
    "any_usable",
    "read_batches",
    "read_table",
    "sound_digests",
    "table_digest",
    "table_of",
    "usable_images",
    "write_groups",
    "write_table",
]

# A table need not fit into memory: a reader holds this many rows at a time, and a few MB for each column of a
# row group.
_BATCH_ROWS = 2**14

GROUP_ROWS = 2**17
"""Rows of a row group of every table that a stage writes."""

_Rows = TypeVar("_Rows", pa.Table, pa.RecordBatch)


def table_of(schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return a table of `rows` with exactly the columns of `schema`; a missing value is null.

    Raises KeyError for a key that is no column.
    """
    rows = list(rows)
    for row in rows:
        if unknown := set(row) - set(schema.names):
            raise KeyError(f"no column {sorted(unknown)} in the schema {schema.names}")
    return pa.Table.from_pylist(rows, schema=schema)


def write_table(path: Path, table: pa.Table, *, group_rows: int = GROUP_ROWS) -> None:
    """Write `table` to the parquet file `path`, whole or not at all, in row groups of `group_rows`."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, row_group_size=group_rows, compression="zstd")


def write_groups(path: Path, schema: pa.Schema, groups: Iterable[pa.Table]) -> None:
    """Write tables with the columns of `schema` as the row groups of one file, as `write_table` does.

    For a table that is made in parts: each of them has GROUP_ROWS rows but the last, and there is one at
    least.
    """
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for group in groups:
            writer.write_table(group.select(schema.names).combine_chunks().cast(schema), GROUP_ROWS)


def read_table(
    path: Path, schema: pa.Schema, made_by: str = "", columns: Sequence[str] | None = None
) -> pa.Table:
    """Read the parquet file `path`, which must have `schema`: only `columns`, where these are given.

    `made_by` is the command that makes the file, with its options but without the run. Raises StageError
    where the file is missing, is not parquet or has other columns. Columns that are ADDED and not there are
    null.
    """
    lacking = _check_schema(path, schema, made_by)
    with _parquet_errors(path):
        table = pq.read_table(path, columns=_there(schema, columns, lacking))
    return _with_nulls(table, schema, columns) if lacking else table


def read_batches(
    path: Path, schema: pa.Schema, made_by: str = "", columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the table that `read_table` returns in parts, for a caller that keeps less of each part.

    Raises StageError as `read_table` does.
    """
    lacking = _check_schema(path, schema, made_by)
    with _open_parquet(path) as file:
        for batch in _batches(file, _there(schema, columns, lacking)):
            yield _with_nulls(batch, schema, columns) if lacking else batch


def _there(schema: pa.Schema, columns: Sequence[str] | None, lacking: Set[str]) -> Sequence[str] | None:
    """Return what to read of a file for `columns`: at least one, which says how many rows there are."""
    if not lacking:
        return None if columns is None else list(columns)
    return [name for name in columns or schema.names if name not in lacking] or schema.names[:1]


def _with_nulls(rows: _Rows, schema: pa.Schema, columns: Sequence[str] | None) -> _Rows:
    """Return `columns`, or all of `schema`, of rows that lack some, which are null."""
    wanted = list(columns or schema.names)
    for name in wanted:
        if name not in rows.schema.names:
            rows = rows.append_column(schema.field(name), pa.nulls(rows.num_rows, schema.field(name).type))
    return rows.select(wanted)


def _check_schema(path: Path, schema: pa.Schema, made_by: str) -> Set[str]:
    """Return the ADDED columns that the file lacks. Raises StageError for any other difference."""
    if not path.is_file():
        raise StageError(f"{path} does not exist{_remedy(path, made_by)}")
    with _parquet_errors(path):
        found = pq.read_schema(path)
    lacking = {field.name for field in schema if _is_added(field) and field.name not in found.names}
    if not found.equals(pa.schema([field for field in schema if field.name not in lacking])):
        raise StageError(
            f"{path} has the columns {found.names}, expected {schema.names}; "
            "delete it and run its stage again"
        )
    return lacking


def _remedy(path: Path, made_by: str) -> str:
    """Return what to type where a file is missing, with the run that it lies in, if it lies in one."""
    if not made_by:
        return ""
    command, *options = made_by.split()
    run = [folder for folder in path.parents if (folder / "run.toml").is_file()][:1]
    return f"; run `{typed(command, *run, *options)}` first"


def _is_added(field: pa.Field) -> bool:
    return {name.decode(): value.decode() for name, value in (field.metadata or {}).items()} == ADDED


@contextmanager
def _open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    # With a buffer size, pages are read as they are needed; without one, a column's whole row group is read
    # at once.
    with _parquet_errors(path), pq.ParquetFile(path, buffer_size=2**20) as file:
        yield file


def _batches(
    file: pq.ParquetFile, columns: Sequence[str] | None = None, rows: int = _BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    # Read group by group: otherwise arrow keeps what it has read of every group until the last one.
    for group in range(file.num_row_groups):
        yield from file.iter_batches(rows, row_groups=[group], columns=columns)


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise StageError(
            f"{path} cannot be read as a parquet table ({error}); delete it and run its stage again"
        ) from error


def usable_images(path: Path) -> pa.Table:
    """Return key and path of every usable image in the images table `path`, ordered by key."""
    batches = read_batches(path, IMAGES, "prepare", ["key", "path", "status"])
    parts = [
        batch.filter(pc.equal(batch.column("status"), "ok")).select(["key", "path"]) for batch in batches
    ]
    return pa.Table.from_batches(parts, pa.schema([IMAGES.field("key"), IMAGES.field("path")]))


def any_usable(path: Path) -> bool:
    """Return whether the images table `path` holds an image that a stage can use."""
    return bool(
        pc.any(pc.equal(read_table(path, IMAGES, "prepare", ["status"]).column("status"), "ok")).as_py()
    )


def table_digest(path: Path, schema: pa.Schema, made_by: str = "", *, batch_rows: int = _BATCH_ROWS) -> str:
    """Return the digest of the table `path`, holding `batch_rows` of its rows at a time; see `remembered`.

    Raises StageError as `read_table` does.
    """
    _check_schema(path, schema, made_by)
    # By the caller's schema: files of earlier versions do not say which columns are in no digest.
    return remembered(_parquet_digest, path, tuple(digested(schema).names), batch_rows)


def _parquet_digest(path: Path, columns: tuple[str, ...], batch_rows: int) -> str:
    with _open_parquet(path) as file:
        schema = pa.schema([file.schema_arrow.field(name) for name in columns])
        return digest_batches(schema, file.metadata.num_rows, _batches(file, columns, batch_rows))


def sound_digests(tables: Mapping[str, tuple[Path, pa.Schema]]) -> dict[str, str]:
    """Return the content digest of each named (path, schema) that is there, whole and of that schema."""
    found: dict[str, str] = {}
    for name, (path, schema) in tables.items():
        with suppress(StageError):
            found[name] = table_digest(path, schema)
    return found
