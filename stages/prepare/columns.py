"""Samples as columns of Arrow, from the drafts of all parts of all files to the rows of the table of samples.

Python's objects are those of one part at a time: of a million samples they would take 5 GB.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ...manifests.schemas import PROBLEMS, SAMPLES
from .formats.rows import Draft, Line, Refused, TextFile, number_repeats
from .identity import SplitIdentity, content_digest, identity_of

__all__ = ["ROWS", "Columns", "Samples", "columns_of", "joined"]

_CONTENT = ("tokens", "tags", "head", "tail", "relation", "groups", "image", "text", "offsets")

_DRAFTS = pa.schema(
    [
        ("name", pa.string()),
        ("alone", pa.string()),
        ("given", pa.bool_()),
        ("line", pa.int64()),
        ("digest", pa.binary(32)),
        ("content", pa.binary(32)),
        *(SAMPLES.field(name) for name in _CONTENT),
    ]
)

ROWS = pa.schema([field for field in SAMPLES if field.name != "image_key"])
"""What `Samples` holds of each sample: all but the key of its image."""

# `row` is that of the sample in its part.
_NOTES = pa.schema([("row", pa.int64()), *(PROBLEMS.field(name) for name in ("kind", "where", "reason"))])

# The boxes of the mentions of those samples whose text has some.
_MARKS = pa.schema(
    [
        ("row", pa.int64()),
        ("where", pa.string()),
        ("boxes", pa.list_(pa.list_(pa.list_(pa.float64(), 4)))),
    ]
)


@dataclass(frozen=True)
class Columns:
    """The samples of a part of a file (_DRAFTS), what was repaired in them (_NOTES), and rows left out.

    marks: the boxes of mentions in the text (_MARKS).
    """

    drafts: pa.Table
    notes: pa.Table
    refused: pa.Table
    marks: pa.Table

    def __len__(self) -> int:
        return len(self.drafts)


@dataclass(frozen=True)
class Samples:
    """All samples of a run but for the keys of their images.

    rows: ROWS in the order of the files. order: their numbers by (split, id), the order of the table.
    repairs: rows of PROBLEMS, in that order, and then those of rows that were left out. marks: the boxes of
    mentions that texts have (_MARKS), by the number of the row of `rows`. sizes, identities: the number of
    samples and identity of each split.
    """

    rows: pa.Table
    order: pa.Array
    repairs: pa.Table
    marks: pa.Table
    sizes: dict[str, int]
    identities: dict[str, SplitIdentity]

    def __len__(self) -> int:
        return len(self.order)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column in the order of the table."""
        return self.rows[name].take(self.order)

    def blocks(self, column: pa.ChunkedArray) -> Iterator[tuple[str, pa.ChunkedArray]]:
        """Yield each split with its part of a column that is in the order of the table."""
        start = 0
        for split in sorted(self.sizes):
            yield split, column.slice(start, self.sizes[split])
            start += self.sizes[split]

    def groups(self, rows: int, **added: pa.ChunkedArray) -> Iterator[pa.Table]:
        """Yield the samples in the order of the table, `rows` of them at a time and at least one table.

        added: further columns, in that order.
        """
        for start in range(0, max(len(self), 1), rows):
            part = self.rows.take(self.order.slice(start, rows))
            for name, column in added.items():
                part = part.append_column(name, column.slice(start, rows))
            yield part


def columns_of(found: Iterable[Draft | Refused], label: str) -> Columns:
    """Return what a part of a file holds as columns.

    label: the kind of problem that a label which is read as another is.
    """
    columns: dict[str, list[Any]] = {name: [] for name in _DRAFTS.names}
    notes: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    for draft in found:
        if isinstance(draft, Refused):
            where = draft.line.where
            refused.append({"kind": "row", "sample": "", "where": where, "reason": draft.reason})
            continue
        row = len(columns["name"])
        for name in ("name", "alone", "given", *_CONTENT):
            columns[name].append(getattr(draft, name))
        columns["line"].append(draft.line.number)
        columns["digest"].append(bytes.fromhex(draft.digest))
        columns["content"].append(content_digest(vars(draft)))
        said = [(label, *repair) for repair in draft.repairs] + [("span", *moved) for moved in draft.moved]
        if draft.converted:
            said.append(("scheme", draft.line, f"tags of {draft.converted}, read as BIO"))
        if draft.boxes is not None:
            marks.append({"row": row, "where": draft.line.where, "boxes": draft.boxes})
        notes += [
            {"row": row, "kind": kind, "where": line.where, "reason": reason} for kind, line, reason in said
        ]
    return Columns(
        pa.table(columns, schema=_DRAFTS),
        pa.Table.from_pylist(notes, schema=_NOTES),
        pa.Table.from_pylist(refused, schema=PROBLEMS),
        pa.Table.from_pylist(marks, schema=_MARKS),
    )


def joined(read: dict[str, list[Columns]], files: Mapping[str, Path], task: str) -> Samples:
    """Return the samples of all parts of each split's file, with their ids.

    `read` is emptied: a column is taken out of the parts when it is joined, so that never two of everything
    are held. Raises InputError where an id is used twice: derived ids must be unique in a split, ids from a
    file anywhere.
    """
    notes, marked = (
        {split: _joined_rows(name, parts) for split, parts in read.items()} for name in ("notes", "marks")
    )
    refused = [part.refused for parts in read.values() for part in parts]
    chunks = {
        split: {name: [part.drafts[name] for part in parts] for name in _DRAFTS.names}
        for split, parts in read.items()
    }
    read.clear()

    def taken(name: str, *splits: str) -> pa.ChunkedArray:
        parts = [chunk for split in splits for column in chunks[split].pop(name) for chunk in column.chunks]
        # A table's chunks are combined as far as the offsets of strings, of 32 bits, allow.
        return pa.table([pa.chunked_array(parts, _DRAFTS.field(name).type)], [name]).combine_chunks()[name]

    ids: dict[str, pa.ChunkedArray] = {}
    given: dict[str, pa.ChunkedArray] = {}
    identities = {}
    for split in chunks:
        given[split] = taken("given", split)
        names = _alone(taken("name", split), taken("alone", split))
        ids[split] = _numbered(names, given[split], taken("digest", split))
        identity = identity_of(taken("content", split))
        if identity.samples:
            identities[split] = identity
    _check_ids(ids, given, {split: taken("line", split) for split in chunks}, files)
    sizes = {split: len(each) for split, each in ids.items()}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    order = np.concatenate(
        [starts[split] + pc.sort_indices(ids[split]).to_numpy().astype(np.int64) for split in sorted(ids)]
    )
    every = pa.chunked_array([chunk for each in ids.values() for chunk in each.chunks], pa.string())
    made = {
        "id": every,
        "split": _times([*sizes], [*sizes.values()]),
        "task": _times([task], [len(order)]),
    }
    rows = {name: made[name] if name in made else taken(name, *chunks) for name in ROWS.names}
    repairs = pa.concat_tables([_repairs(notes, starts, every, order), *refused])
    marks = pa.concat_tables(
        [_MARKS.empty_table(), *(_moved(each, starts[split]) for split, each in marked.items())]
    )
    return Samples(pa.table(rows, schema=ROWS), pa.array(order), repairs, marks, sizes, identities)


def _times(texts: Sequence[str], counts: Sequence[int]) -> pa.Array:
    """Return each text as often as it counts."""
    return pa.array(texts, pa.string()).take(pa.array(np.repeat(np.arange(len(texts)), counts)))


def _joined_rows(name: str, parts: Sequence[Columns]) -> pa.Table:
    """Return the notes or the marks of a split's parts, whose rows count in the split."""
    found, start = [{"notes": _NOTES, "marks": _MARKS}[name].empty_table()], 0
    for part in parts:
        found.append(_moved(getattr(part, name), start))
        start += len(part)
    return pa.concat_tables(found)


def _moved(table: pa.Table, start: int) -> pa.Table:
    """Return a table whose column `row` counts from `start`."""
    return table.set_column(0, table.schema.field("row"), pc.add(table["row"], start))


def _repeated(values: pa.ChunkedArray, times: Callable[[pa.Array, int], pa.Array]) -> pa.Array:
    """Return the values of which `times` says that their count, beside 1, is the wanted one."""
    counts = pc.value_counts(values)
    return counts.field("values").filter(times(counts.field("counts"), 1))


def _alone(names: pa.ChunkedArray, alone: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the name of each sample: what it has `alone`, where no other of its file has that."""
    once = pc.and_(pc.is_in(alone, _repeated(alone, pc.equal)), pc.not_equal(alone, ""))
    return pc.if_else(once, alone, names)


def _numbered(names: pa.ChunkedArray, given: pa.ChunkedArray, digests: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the names with repeated ones numbered, except those that were given."""
    derived = pc.invert(given)
    twice = pc.and_(derived, pc.is_in(names, _repeated(names.filter(derived), pc.greater)))
    if not pc.any(twice).as_py():
        return names
    hexadecimal = [digest.hex() for digest in digests.filter(twice).to_pylist()]
    numbered = number_repeats(names.filter(twice).to_pylist(), hexadecimal)
    return pc.replace_with_mask(names, twice.combine_chunks(), pa.array(numbered, pa.string()))


def _check_ids(
    ids: Mapping[str, pa.ChunkedArray],
    given: Mapping[str, pa.ChunkedArray],
    lines: Mapping[str, pa.ChunkedArray],
    files: Mapping[str, Path],
) -> None:
    """Raise InputError for the first id that is used twice; see `joined`."""
    every = pa.chunked_array([chunk for each in ids.values() for chunk in each.chunks], pa.string())
    twice = _repeated(every, pc.greater)
    taken: dict[tuple[str, str], Line] = {}
    for split, names in ids.items():
        mask = pc.is_in(names, twice)
        columns = (column.filter(mask).to_pylist() for column in (names, given[split], lines[split]))
        for name, is_given, number in sorted(zip(*columns, strict=True), key=lambda row: bool(row[1])):
            line = Line(TextFile(files[split], []), number)
            for scope in (split, "") if is_given else (split,):
                if other := taken.get((scope, name)):
                    raise line.error(
                        f"id {name!r} is already used by {other}; every id must be unique, change one"
                    )
                taken[scope, name] = line


def _repairs(
    notes: Mapping[str, pa.Table],
    starts: Mapping[str, int],
    ids: pa.ChunkedArray,
    order: npt.NDArray[np.int64],
) -> pa.Table:
    """Return the notes of all splits as rows of PROBLEMS, in the order of the table of samples."""
    rows = [starts[split] + each["row"].to_numpy() for split, each in notes.items()]
    numbers = np.concatenate([np.zeros(0, np.int64), *rows])
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    found = pa.concat_tables([_NOTES.empty_table(), *notes.values()])
    found = found.append_column("sample", ids.take(pa.array(numbers)))
    return found.take(pa.array(np.argsort(place[numbers], kind="stable"))).select(PROBLEMS.names)
