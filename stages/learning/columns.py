"""Columns of tables as sequences whose items are made when they are asked for.

As Python's objects, the words and tags of a million samples would take 5 GB.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..text.encoded import EncodedTexts

__all__ = [
    "COLUMNS",
    "Column",
    "distinct",
    "in_arrow",
    "rows_in_turn",
    "rows_named",
    "rows_of",
    "sizes",
    "taken",
]

COLUMNS = ("id", "split", "tokens", "tags", "head", "tail", "relation", "groups", "image_key")
"""The columns of samples.parquet that a split is read from."""

T = TypeVar("T")

# Items that are Python's objects at one time.
_AT_ONCE = 2**10


class Column(Sequence[T], Generic[T]):
    """The items of an Arrow column, `none` in place of each null."""

    def __init__(self, values: pa.ChunkedArray, none: T) -> None:
        self._values = pa.table([values], ["values"]).combine_chunks()["values"]
        self._none = none

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        value = self._values[range(len(self))[index]].as_py()
        return self._none if value is None else value

    def __iter__(self) -> Iterator[T]:
        for start in range(0, len(self), _AT_ONCE):
            for value in self._values.slice(start, _AT_ONCE).to_pylist():
                yield self._none if value is None else value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_equal, self, other))

    __hash__ = None  # type: ignore[assignment]

    @property
    def in_arrow(self) -> pa.ChunkedArray:
        """Return the items as they are in Arrow, where those that are nothing are null."""
        return self._values

    def taken(self, numbers: Sequence[int]) -> "Column[T]":
        """Return the items of these numbers, in this order."""
        return Column(self._values.take(pa.array(numbers, pa.int64())), self._none)

    def distinct(self) -> set[str]:
        """Return the texts that the lists of a column of lists hold."""
        return set(pc.unique(pc.list_flatten(self._values)).to_pylist())


def _equal(one: object, other: object) -> bool:
    return one == other


def taken(items: Sequence[T], numbers: Sequence[int]) -> Sequence[T]:
    """Return the items of these numbers, in this order."""
    return items.taken(numbers) if isinstance(items, Column | EncodedTexts) else [items[i] for i in numbers]


def distinct(lists: Sequence[Sequence[str]]) -> set[str]:
    """Return the texts that lists hold."""
    return lists.distinct() if isinstance(lists, Column) else {text for each in lists for text in each}


def rows_of(table: pa.Table, name: str, value: str) -> pa.Table:
    """Return the rows whose column `name` is `value`, without a copy where they follow each other."""
    places = np.flatnonzero(pc.equal(table[name], value).to_numpy())
    if len(places) and places[-1] - places[0] + 1 == len(places):
        return table.slice(int(places[0]), len(places))
    return table.take(pa.array(places))


def in_arrow(items: Sequence[object], kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    """Return items of a kind as Arrow has them."""
    return items.in_arrow if isinstance(items, Column) else pa.array(items, kind)


def sizes(lists: Sequence[Sequence[object]]) -> list[int]:
    """Return how many items each list has."""
    if not isinstance(lists, Column):
        return [len(each) for each in lists]
    found: list[int] = pc.fill_null(pc.list_value_length(lists.in_arrow), 0).to_pylist()
    return found


def rows_in_turn(table: pa.Table, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, of which some are Python's objects at one time."""
    for batch in table.select(columns).to_batches(_AT_ONCE):
        yield from batch.to_pylist()


def rows_named(table: pa.Table, ids: Sequence[str]) -> pa.Table:
    """Return the rows with these ids, in their order, each of which is there once."""
    return table.take(pc.index_in(pa.array(ids, pa.string()), table["id"].combine_chunks()))
