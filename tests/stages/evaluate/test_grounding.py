"""Grounding is counted as plain loops over pixels and views count it, and what cannot be grounded is said."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hmnet_pipe.cache.spec import FeatureSpec, Transform
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import DETECTIONS, EXPLANATIONS, IMAGES, MENTION_BOXES
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.pipeline.report.text import grounding_table
from hmnet_pipe.stages.evaluate.grounding import check_boxes, grounding_of
from hmnet_pipe.stages.systems.batch import ModelConfig
from hmnet_pipe.stages.vision.plan import iou

Pixels = tuple[int, int, int, int]

SIDES = ("x0", "y0", "x1", "y1")
SIZE = 12
TRANSFORM = Transform(8, (0.5,), (0.5,), "BICUBIC")


def config_of(task: str = "ner", regions: str = "all", views: int = 4) -> ModelConfig:
    spec = FeatureSpec("demo_resnet", "0", TRANSFORM, (2,), 1, views, "float32", regions=regions)
    return ModelConfig("hmnet", task, ("O",), (2,), "markers", 16, {}, spec.to_json())


def pixel_share(one: Pixels, other: Pixels) -> float:
    """Return the share of the pixels of two boxes that are of both, by looking at each pixel."""
    both = either = 0
    for x in range(SIZE):
        for y in range(SIZE):
            inside = [box[0] <= x < box[2] and box[1] <= y < box[3] for box in (one, other)]
            both += all(inside)
            either += any(inside)
    return both / either


def any_box(rng: np.random.Generator) -> Pixels:
    x0, y0 = rng.integers(0, SIZE - 1, 2).tolist()
    return (x0, y0, int(rng.integers(x0 + 1, SIZE + 1)), int(rng.integers(y0 + 1, SIZE + 1)))


def test_iou_is_the_share_of_pixels() -> None:
    rng = np.random.default_rng(1)
    pairs = [(any_box(rng), any_box(rng)) for _ in range(300)]
    found = [iou(*pair) for pair in pairs]
    assert found == pytest.approx([pixel_share(*pair) for pair in pairs])
    assert min(found) == 0
    assert max(found) > 0.5


def detection(key: str, rank: int, box: Sequence[int]) -> dict[str, Any]:
    return {"image_key": key, "rank": rank, "label": "x", "score": 0.9, **dict(zip(SIDES, box, strict=True))}


def write_run(
    folder: Path,
    objects: dict[str, list[Pixels]],
    mentions: list[tuple[str, tuple[int, int], str, Pixels | None]],
) -> RunFolder:
    """Write the tables of a run whose images have SIZE pixels a side, and no features."""
    run = RunFolder(folder)
    images = [
        {"key": key, "path": f"{key}.jpg", "width": SIZE, "height": SIZE, "status": "ok", "reason": None}
        for key in sorted(objects)
    ]
    write_table(run.images, table_of(IMAGES, images))
    found = [detection(key, *each) for key in sorted(objects) for each in enumerate(objects[key])]
    write_table(run.detections, table_of(DETECTIONS, found))
    boxes = [
        {"id": name, "words": words, "type": kind, **dict(zip(SIDES, box or (None,) * 4, strict=True))}
        for name, words, kind, box in mentions
    ]
    write_table(run.mention_boxes, table_of(MENTION_BOXES, boxes))
    return run


def explained(name: str, attention: Any, views: Sequence[bool], over: str = "views") -> dict[str, Any]:
    """Return a row of what a model looked at. attention: layer, word, view; the key is the id."""
    values = np.asarray(attention, np.float32)
    words = [f"w{number}" for number in range(values.shape[1])]
    return {
        "id": name,
        "split": "test",
        "image_key": name,
        "positions": words,
        "over": over,
        "views": list(views),
        "attention": values.tolist(),
        "gates": None,
        "word_gates": [],
    }


@pytest.mark.parametrize("over", ["views", "objects"])
def test_scores_are_those_of_plain_loops(over: str, tmp_path: Path) -> None:
    """With up to three objects, mentions of several words and boxes, and mentions that no image shows."""
    rng = np.random.default_rng(7)
    first = 1 if over == "views" else 0
    objects: dict[str, list[Pixels]] = {}
    mentions: list[tuple[str, tuple[int, int], str, Pixels | None]] = []
    rows = []
    expected: dict[str, list[tuple[bool, bool, bool, float, bool]]] = {"A": [], "B": []}
    away: list[bool] = []
    for number in range(40):
        name = f"{number:02d}"
        objects[name] = [any_box(rng) for _ in range(int(rng.integers(0, 4)))]
        whole: list[Pixels] = [(0, 0, SIZE, SIZE)] if over == "views" else []
        there = [*whole, *objects[name]]
        views = [view < len(there) for view in range(3 + first)]
        attention = rng.random((2, 5, 3 + first)) * np.array(views)
        rows.append(explained(name, attention, views, over))
        for words, kind in (((0, 2), "A"), ((3, 4), "B")):
            drawn = [any_box(rng) for _ in range(int(rng.integers(0, 3)))]
            if drawn and objects[name]:
                drawn[0] = objects[name][0]
            mentions += [(name, words, kind, box) for box in drawn or [None]]
            sums = [
                sum(float(attention[layer][word][view]) for layer in range(2) for word in range(*words))
                for view in range(len(there))
            ]
            best = sums.index(max(sums)) if sums else None
            right = [any(pixel_share(view, box) >= 0.5 for box in drawn) for view in there]
            if not drawn:
                away.append(best == 0)
                continue
            chance = sum(right) / len(right) if right else 0.0
            hit = best is not None and right[best]
            expected[kind].append((hit, any(right), any(right[first:]), chance, best == 0))
    run = write_run(tmp_path, objects, mentions)
    found = grounding_of(config_of(), table_of(EXPLANATIONS, rows), run)
    names = ("accuracy", "ceiling", "detected", "chance")
    for got, some in (
        (found, expected["A"] + expected["B"]),
        (found["per_type"]["A"], expected["A"]),
        (found["per_type"]["B"], expected["B"]),
    ):
        means = np.array(some, float).mean(axis=0)
        assert [got[each] for each in names] == pytest.approx(means[:4].tolist())
        assert got["mentions"] == len(some) > 5
    assert found["not_in_image"] == len(away) > 5
    shares: dict[str, float | None] = {"in_image": None, "not_in_image": None}
    if over == "views":
        every = expected["A"] + expected["B"]
        shares = {
            "in_image": sum(one[4] for one in every) / len(every),
            "not_in_image": sum(away) / len(away),
        }
    assert found["whole_image"] == pytest.approx(shares)
    assert 0 < found["chance"] < found["ceiling"] < 1
    table = grounding_table(found)
    assert f"{found['accuracy']:.4f}" in table
    assert ("the whole image has the most attention" in table) == (over == "views")


BOX = (0, 0, 6, 12)


@pytest.mark.parametrize(
    ("drawn", "hit", "detected"),
    [((0, 0, 12, 12), True, True), ((0, 0, 5, 12), False, True), ((6, 0, 12, 12), True, False)],
)
def test_the_whole_image_is_a_box_of_its_own_and_half_an_overlap_is_enough(
    drawn: Pixels, hit: bool, detected: bool, tmp_path: Path
) -> None:
    run = write_run(tmp_path, {"a": [BOX]}, [("a", (0, 1), "A", drawn)])
    looks = explained("a", [[[0.6, 0.4]]], [True, True])
    found = grounding_of(config_of(views=2), table_of(EXPLANATIONS, [looks]), run)
    assert (found["accuracy"], found["ceiling"], found["detected"]) == (hit, True, detected)


def test_features_of_objects_alone_have_no_view_of_the_image(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"a": [BOX, (6, 0, 12, 12)]}, [("a", (0, 1), "A", BOX)])
    looks = table_of(EXPLANATIONS, [explained("a", [[[0.6, 0.4]]], [True, True])])
    assert grounding_of(config_of(regions="objects", views=2), looks, run)["accuracy"] == 1
    assert grounding_of(config_of(regions="all", views=2), looks, run)["accuracy"] == 1  # IoU 0.5 with all
    run = write_run(tmp_path, {"a": [BOX, (6, 0, 12, 12)]}, [("a", (0, 1), "A", (0, 0, 5, 12))])
    assert grounding_of(config_of(regions="objects", views=2), looks, run)["accuracy"] == 1
    assert grounding_of(config_of(regions="all", views=2), looks, run)["accuracy"] == 0


def test_words_that_the_model_did_not_read_are_looked_for_nowhere(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"a": [BOX]}, [("a", (1, 3), "A", BOX), ("a", (3, 4), "B", BOX)])
    looks = explained("a", [[[0.9, 0.1], [0.2, 0.8]]], [True, True])
    found = grounding_of(config_of(views=2), table_of(EXPLANATIONS, [looks]), run)
    assert (found["per_type"]["A"]["accuracy"], found["per_type"]["B"]["accuracy"]) == (1, 0)
    assert found["per_type"]["B"]["ceiling"] == 1


def test_what_cannot_be_grounded_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"relations have no boxes of mentions: only entities can be grou"):
        check_boxes(config_of("re"), RunFolder(tmp_path))
    with pytest.raises(InputError, match=r"no boxes of mentions; run `hmnet-pipe prepare .* --mention-boxes"):
        check_boxes(config_of(), RunFolder(tmp_path))
    run = write_run(tmp_path, {"a": [BOX]}, [("a", (0, 1), "A", None)])
    check_boxes(config_of(), run)
    for over, reason in (
        ("cells", r"hmnet attends to cells of the whole image, and to no view that has a box"),
        ("views", r"no mention of the test split of .* has a box; see its problems\.parquet"),
    ):
        looks = table_of(EXPLANATIONS, [explained("a", [[[0.6, 0.4]]], [True, True], over)])
        with pytest.raises(InputError, match=reason):
            grounding_of(config_of(), looks, run)
