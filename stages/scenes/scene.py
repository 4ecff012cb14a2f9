"""A scene graph as the stage handles it, whatever it was made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..vision.plan import Box

__all__ = ["EMPTY_SCENE", "Relation", "Scene", "Thing"]


@dataclass(frozen=True)
class Thing:
    """An object: its box as shares of the image's sides, and the row of its features, if it has any."""

    box: Box
    label: str
    score: float
    feature: int | None = None


@dataclass(frozen=True)
class Relation:
    """`subject` `predicate` `object`: both are numbers of objects. strength: from 0 to 1."""

    subject: int
    predicate: str
    object: int
    strength: float


@dataclass(frozen=True)
class Scene:
    """The objects of an image by falling score, and the relations between them by falling strength.

    source: manifests.schemas.GEOMETRY or SCENE_GRAPH, or "" where there is no graph.
    """

    source: str
    things: tuple[Thing, ...]
    relations: tuple[Relation, ...]

    @classmethod
    def of(cls, source: str, things: Sequence[Thing], relations: Sequence[Relation], most: int) -> "Scene":
        """Return a scene of the best `most` objects, in order; relations of other objects are left out.

        Of relations that say the same, the strongest stays.
        """
        order = sorted(range(len(things)), key=lambda i: (-things[i].score, i))[:most]
        place = {old: new for new, old in enumerate(order)}
        best: dict[tuple[int, str, int], float] = {}
        for one in relations:
            if one.subject in place and one.object in place:
                said = (place[one.subject], one.predicate, place[one.object])
                best[said] = max(one.strength, best.get(said, 0.0))
        kept = sorted((Relation(*said, strength) for said, strength in best.items()), key=_by_strength)
        return cls(source, tuple(things[i] for i in order), tuple(kept))

    def row(self, key: str) -> dict[str, Any]:
        """Return the row of the image `key` (manifests.schemas.SCENES)."""
        return {
            "image_key": key,
            "source": self.source,
            "boxes": [list(thing.box) for thing in self.things],
            "labels": [thing.label for thing in self.things],
            "scores": [thing.score for thing in self.things],
            "subjects": [one.subject for one in self.relations],
            "predicates": [one.predicate for one in self.relations],
            "objects": [one.object for one in self.relations],
            "strengths": [one.strength for one in self.relations],
        }


def _by_strength(one: Relation) -> tuple[float, int, int, str]:
    return (-one.strength, one.subject, one.object, one.predicate)


EMPTY_SCENE = Scene("", (), ())
