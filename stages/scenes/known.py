"""The images of a run that a record of scene graphs may name, and what is wrong with a record."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["BadRecord", "KnownImages", "shown"]


class BadRecord(Exception):
    """What is wrong with one record: its row of the failure table. The other records are read on."""


@dataclass(frozen=True)
class KnownImages:
    """The usable images of a run. sizes: width and height in pixels, by key. names: the keys of each name."""

    sizes: Mapping[str, tuple[int, int]]
    names: Mapping[str, set[str]]

    @classmethod
    def of(cls, images: Iterable[Mapping[str, Any]], samples: Iterable[Mapping[str, Any]]) -> "KnownImages":
        """Return those of rows of images.parquet and samples.parquet."""
        sizes = {row["key"]: (row["width"], row["height"]) for row in images if row["status"] == "ok"}
        names: dict[str, set[str]] = {}
        for row in samples:
            if row["image"] is not None:
                keys = {row["image_key"]} - {None}
                for name in {row["image"], Path(row["image"]).name}:
                    names.setdefault(name, set()).update(keys)
        return cls(sizes, names)

    def key(self, name: Any) -> str:
        """Return the key of the image that a record names. Raises BadRecord where it is none or several."""
        if not isinstance(name, str) or not name:
            raise BadRecord(f"image must be a file name or a content key, not {shown(name)}")
        if name in self.sizes:
            return name
        known = name if name in self.names else Path(name).name
        found = sorted(self.names.get(known, set()) & self.sizes.keys())
        if len(found) > 1:
            raise BadRecord(
                f"the image {name!r} is {len(found)} images of this run; name it by its content key"
            )
        if not found:
            wrong = "not usable" if known in self.names else "not one of this run"
            raise BadRecord(f"the image {name!r} is {wrong}")
        return found[0]


def shown(value: Any) -> str:
    """Return a value of a record for a message."""
    return "nothing" if value is None else f"{value!r:.80}"
