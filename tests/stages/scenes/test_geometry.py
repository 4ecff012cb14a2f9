"""Relations of boxes and of labels, against a plain reading of the rules."""

import math
from itertools import permutations

import numpy as np
import pytest
from hmnet_pipe.stages.scenes.geometry import association, geometric_scene, spatial_relation
from hmnet_pipe.stages.scenes.scene import Relation, Scene, Thing
from hmnet_pipe.stages.scenes.settings import SceneSettings
from hmnet_pipe.stages.vision.plan import Box

SETTINGS = SceneSettings()
NEAR = 0.1 * (1 - 0.05 / (0.25 * 0.3 * 2**0.5))  # a gap of 0.05 between squares of 0.3
BIG = (0.1, 0.1, 0.9, 0.9)


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ((0.2, 0.2, 0.4, 0.4), BIG, ("inside", 1.0)),
        (BIG, (0.2, 0.2, 0.4, 0.4), ("contains", 1.0)),
        ((0.0, 0.0, 0.4, 0.4), (0.2, 0.0, 0.6, 0.4), ("overlaps", 1 / 3)),
        (BIG, BIG, ("overlaps", 1.0)),  # neither is the smaller one
        ((0.0, 0.0, 0.3, 0.3), (0.3, 0.0, 0.6, 0.3), ("near-left", 0.1)),
        ((0.3, 0.0, 0.6, 0.3), (0.0, 0.0, 0.3, 0.3), ("near-right", 0.1)),
        ((0.0, 0.0, 0.3, 0.3), (0.0, 0.35, 0.3, 0.65), ("near-above", NEAR)),
        ((0.0, 0.35, 0.3, 0.65), (0.0, 0.0, 0.3, 0.3), ("near-below", NEAR)),
        ((0.0, 0.0, 0.1, 0.1), (0.8, 0.8, 0.9, 0.9), None),
    ],
)
def test_a_pair_of_boxes_has_the_first_relation_that_matches(
    one: Box, other: Box, wanted: tuple[str, float] | None
) -> None:
    found = spatial_relation(one, other, SETTINGS)
    assert (found is None) == (wanted is None)
    if wanted is not None:
        assert found[0] == wanted[0]
        assert found[1] == pytest.approx(wanted[1])


def test_a_relation_and_its_inverse_agree() -> None:
    random = np.random.default_rng(0)
    inverse = {
        "inside": "contains",
        "contains": "inside",
        "overlaps": "overlaps",
        "near-left": "near-right",
        "near-right": "near-left",
        "near-above": "near-below",
        "near-below": "near-above",
    }
    met = set()
    for _ in range(2000):
        corners = random.random((2, 2, 2))
        one, other = (
            (*np.minimum(a, b).tolist(), *np.maximum(a, b).tolist()) for a, b in corners * [[[1, 0.5]]]
        )
        there, back = spatial_relation(one, other, SETTINGS), spatial_relation(other, one, SETTINGS)
        assert (there is None) == (back is None)
        if there is not None:
            assert inverse[there[0]] == back[0]
            assert there[1] == pytest.approx(back[1])
            met.add(there[0])
    assert met == set(inverse)


def test_association_is_ppmi_of_training_images() -> None:
    images = [["dog", "cat"], ["dog", "cat", "cat"], ["dog"], ["car"], []]
    found = association(images)
    assert found[("cat", "dog")] == pytest.approx(math.log((2 + 1) * (5 + 1) / ((2 + 1) * (3 + 1))))
    assert found[("cat", "cat")] == pytest.approx(math.log((1 + 1) * (5 + 1) / ((2 + 1) * (2 + 1))))
    assert set(found) == {("cat", "dog"), ("cat", "cat")}  # never together: not associated


def things(*boxes: tuple[str, tuple[float, float, float, float], float]) -> list[Thing]:
    return [Thing(box, label, score) for label, box, score in boxes]


def test_labels_that_go_together_relate_objects_that_are_far_apart() -> None:
    far = things(("dog", (0.0, 0.0, 0.1, 0.1), 0.9), ("cat", (0.8, 0.8, 0.9, 0.9), 0.8))
    scene = geometric_scene(far, {("cat", "dog"): 1.0}, SETTINGS)
    assert scene.relations == (Relation(0, "cooccurs", 1, 0.5), Relation(1, "cooccurs", 0, 0.5))
    assert not geometric_scene(far, {("cat", "dog"): 0.4}, SETTINGS).relations


def test_the_best_objects_and_the_strongest_relations_stay() -> None:
    random = np.random.default_rng(1)
    many = [
        Thing((x, y, x + 0.3, y + 0.3), "a", score)
        for x, y, score in (random.random((15, 3)) * [0.7, 0.7, 1]).tolist()
    ]
    scene = geometric_scene(many, {}, SETTINGS)
    assert [thing.score for thing in scene.things] == sorted((t.score for t in many), reverse=True)[:10]
    every = {
        (i, j): found
        for i, j in permutations(range(10), 2)
        if (found := spatial_relation(scene.things[i].box, scene.things[j].box, SETTINGS))
    }
    assert len(every) > 20
    strengths = sorted((strength for _, strength in every.values()), reverse=True)[:20]
    assert [one.strength for one in scene.relations] == strengths
    assert all(every[one.subject, one.object] == (one.predicate, one.strength) for one in scene.relations)


def test_of_relations_that_say_the_same_the_strongest_stays() -> None:
    two = things(("a", BIG, 0.5), ("b", BIG, 0.9))
    said = [Relation(0, "on", 1, 0.2), Relation(0, "on", 1, 0.6), Relation(1, "under", 0, 0.3)]
    scene = Scene.of("scene-graph", two, said, 10)
    assert [thing.label for thing in scene.things] == ["b", "a"]
    assert scene.relations == (Relation(1, "on", 0, 0.6), Relation(0, "under", 1, 0.3))
    assert Scene.of("scene-graph", two, said, 1).relations == ()
