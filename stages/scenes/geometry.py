"""Scene graphs without a scene-graph model: where detected objects stand, and which labels go together.

This replaces the model of Visual Genome that MEGA and BERT+SG were published with. MEGA's released graphs (of
MNRE-1's test split) have 10.2 relations an image among at most 10 objects, and none in a fifth of the images.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations_with_replacement, permutations

from ...manifests.schemas import GEOMETRY
from ..vision.plan import Box
from .scene import Relation, Scene, Thing
from .settings import SceneSettings

__all__ = ["Association", "association", "geometric_scene", "spatial_relation"]

Association = Mapping[tuple[str, str], float]
"""The PPMI of two labels in alphabetical order; pairs that are not associated are left out."""


def association(labels: Iterable[Sequence[str]]) -> dict[tuple[str, str], float]:
    """Return the PPMI of each pair of labels that occur together, in alphabetical order.

    labels: those of the objects of each training image. ln((c_ab + 1)(n + 1) / ((c_a + 1)(c_b + 1))), or 0
    where that is less: n images, c_a with the label a, c_ab with both, or with two objects of it for a = b.
    """
    images, single, both = 0, Counter[str](), Counter[tuple[str, str]]()
    for of_image in labels:
        images += 1
        counts = Counter(of_image)
        single.update(counts.keys())
        for a, b in combinations_with_replacement(sorted(counts), 2):
            if a != b or counts[a] > 1:
                both[a, b] += 1
    found = {
        (a, b): math.log((count + 1) * (images + 1) / ((single[a] + 1) * (single[b] + 1)))
        for (a, b), count in both.items()
    }
    return {pair: value for pair, value in found.items() if value > 0}


def geometric_scene(things: Sequence[Thing], associated: Association, settings: SceneSettings) -> Scene:
    """Return the scene of an image's detections.

    Each ordered pair has at most one relation: that of their boxes, or `cooccurs` where their labels are
    associated. The strongest `settings.edges` for each object stay.
    """
    scene = Scene.of(GEOMETRY, things, (), settings.objects)
    relations = []
    for i, j in permutations(range(len(scene.things)), 2):
        one, other = scene.things[i], scene.things[j]
        found = spatial_relation(one.box, other.box, settings)
        if found is None:
            ppmi = associated.get((min(one.label, other.label), max(one.label, other.label)), 0.0)
            found = ("cooccurs", ppmi / (1 + ppmi)) if 0 < ppmi >= settings.cooccurrence else None
        if found is not None:
            relations.append(Relation(i, found[0], j, found[1]))
    whole = Scene.of(GEOMETRY, scene.things, relations, settings.objects)
    most = math.floor(settings.edges * len(scene.things))
    return Scene(whole.source, whole.things, whole.relations[:most])


def spatial_relation(one: Box, other: Box, settings: SceneSettings) -> tuple[str, float] | None:
    """Return what the first box is to the second, and how strongly, or None where they are far apart.

    A box `inside` another is as strong as the share of it that is; `contains` is its inverse. `overlaps` is
    as strong as their IoU. `near-left` says that the first is left of the second, along the larger offset of
    the centres; where they touch it is as strong as the weakest overlap, and less with every gap.
    """
    areas = _area(one), _area(other)
    corner = max(one[0], other[0]), max(one[1], other[1])
    shared = _area((*corner, min(one[2], other[2]), min(one[3], other[3])))
    for first, second, name in ((0, 1, "inside"), (1, 0, "contains")):
        if areas[first] < areas[second] and shared >= settings.inside * areas[first] > 0:
            return name, shared / areas[first]
    union = sum(areas) - shared
    if union > 0 and shared / union >= settings.overlap and shared > 0:
        return "overlaps", shared / union
    across = max(one[0], other[0]) - min(one[2], other[2])
    down = max(one[1], other[1]) - min(one[3], other[3])
    gap = math.hypot(max(across, 0.0), max(down, 0.0))
    limit = settings.near * (_diagonal(one) + _diagonal(other)) / 2
    if gap > limit:
        return None
    strength = settings.overlap * (1 - gap / limit) if limit else settings.overlap
    right, below = (other[i] + other[i + 2] - one[i] - one[i + 2] for i in (0, 1))
    if abs(right) >= abs(below):
        return ("near-left" if right >= 0 else "near-right"), strength
    return ("near-above" if below >= 0 else "near-below"), strength


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _diagonal(box: Box) -> float:
    return math.hypot(box[2] - box[0], box[3] - box[1])
