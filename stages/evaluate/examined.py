"""What answers depend on and what the model looked at, as plain data that a file keeps; it needs no torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...manifests.files import read_text, write_text
from ..learning.errors import Entity

__all__ = ["IMAGE", "LEVEL", "VIEW", "Examined", "KeptCases", "Looked", "Occluded"]

IMAGE, VIEW, LEVEL = "image", "view", "level"
"""What is taken away: the whole image with all its views, one view, or one level of all views."""


@dataclass(frozen=True)
class Occluded:
    """The probability of an answer without a part. number: of the view, or of the level, from 0."""

    what: str
    number: int
    probability: float


@dataclass(frozen=True)
class Looked:
    """What a model looked at for one answer, the mean over heads, and over both entities of a relation.

    over, present, and the symbols are those of stages.systems.system.Explanation. gates: (L, V, c) or None.
    attention: (L, V). cells: (L, V, P) or None. first: the number of the view that the first of V is. word:
    the number of the word that looks; None for a relation.
    """

    over: str
    present: list[bool]
    gates: list[list[list[float]]] | None
    attention: list[list[float]]
    cells: list[list[list[float]]] | None
    first: int
    word: int | None


@dataclass(frozen=True)
class Examined:
    """One answer of a model to one sample.

    answer: an entity, or a relation with the words 0 and 0. probability: of exactly this answer, at the
    model's temperature; None where the model does not know the type, or reads the text only in part.
    """

    answer: Entity
    probability: float | None
    occluded: tuple[Occluded, ...]
    looked: Looked | None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Examined":
        """Return what `asdict` made into JSON."""
        name, first, last = values["answer"]
        looked = values["looked"]
        return cls(
            (str(name), int(first), int(last)),
            values["probability"],
            tuple(Occluded(**one) for one in values["occluded"]),
            None if looked is None else Looked(**looked),
        )


@dataclass(frozen=True)
class KeptCases:
    """Examined answers of one model to samples of one split.

    made_from: what they follow from, as an evaluation has it. truncated: how many texts of each split the
    model reads in part. cases: by the sample's id and the answer.
    """

    made_from: Mapping[str, str]
    truncated: Mapping[str, int]
    cases: Mapping[tuple[str, Entity], Examined]

    def write(self, path: Path) -> None:
        """Write them to a file."""
        cases: Sequence[Any] = [{"id": id_, **asdict(one)} for (id_, _), one in self.cases.items()]
        values = {"made_from": dict(self.made_from), "truncated": dict(self.truncated), "cases": cases}
        write_text(path, json.dumps(values) + "\n")

    @classmethod
    def known(cls, path: Path, made_from: Mapping[str, str]) -> "KeptCases | None":
        """Return those in a file if they follow from `made_from`; None where not, or it cannot be read."""
        try:
            values = json.loads(read_text(path))
            if values["made_from"] != dict(made_from):
                return None
            found = [(str(one.pop("id")), Examined.from_json(one)) for one in values["cases"]]
            truncated = {str(split): int(count) for split, count in values["truncated"].items()}
            return cls(made_from, truncated, {(id_, one.answer): one for id_, one in found})
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
