"""Scenes and trees as a batch has them: ids, boxes, relations, and R' at the first sub-words of words."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hmnet_pipe.manifests.errors import StageError
from hmnet_pipe.manifests.schemas import DEPENDENCIES, SCENES
from hmnet_pipe.manifests.tables import table_of
from hmnet_pipe.stages.learning.graphs import SceneObjects, Structure, scene_vocabularies
from hmnet_pipe.stages.learning.structure import neighbourhoods, structural_weights
from hmnet_pipe.stages.text.limits import EncodedText, encode_pair, encode_words

MARKERS = {"[E1]": 90, "[/E1]": 91, "[E2]": 92, "[/E2]": 93}


def a_scene(key: str, labels: list[str], relations: list[tuple[int, str, int]]) -> dict[str, Any]:
    """Return the row of a scene whose relations are given by falling strength."""
    boxes = [[0.1 * i, 0.2, 0.1 * i + 0.3, 0.7] for i in range(len(labels))]
    return {
        "image_key": key,
        "source": "geometry",
        "boxes": boxes,
        "labels": labels,
        "scores": [0.9 - 0.1 * i for i in range(len(labels))],
        "subjects": [subject for subject, _, _ in relations],
        "predicates": [predicate for _, predicate, _ in relations],
        "objects": [object_ for _, _, object_ in relations],
        "strengths": [0.5] * len(relations),
    }


def scenes() -> pa.Table:
    return table_of(
        SCENES,
        [
            a_scene(
                "a", ["man", "dog", "cat"], [(0, "on", 1), (0, "near", 1), (2, "under", 0), (1, "on", 2)]
            ),
            a_scene("b", ["cow"], []),
            a_scene("c", [], []),
        ],
    )


def a_text(words: int, pieces: int = 1) -> EncodedText:
    return encode_pair([[5] * pieces] * words, (0, 1), (1, 2), limit=128, special=(1, 2), markers=MARKERS)


def gathered(extra: Any, *samples: tuple[str, str | None, EncodedText]) -> dict[str, torch.Tensor]:
    ids, keys, texts = zip(*samples, strict=True)
    return extra.gather(ids, keys, texts, max(len(text.input_ids) for text in texts) + 2)


def test_objects_follow_the_image_by_score_with_ids_boxes_and_relations() -> None:
    extra = SceneObjects(scenes(), ["dog", "man"], ["on"], 2)
    text = a_text(3)
    found = gathered(extra, ("1", "a", text), ("2", None, text), ("3", "b", text), ("4", "elsewhere", text))
    assert found["object_labels"].tolist() == [[3, 2], [0, 0], [1, 0], [0, 0]]
    assert found["object_mask"].tolist() == [[True, True], [False] * 2, [True, False], [False] * 2]
    wanted = [0.1, 0.2, 0.4, 0.7, 0.3, 0.5, 0.15, 0.8]
    assert found["object_geometry"][0, 1].tolist() == pytest.approx(wanted)
    # The strongest relation of a pair; those of the third object are beyond what counts.
    assert found["object_edges"].tolist()[0] == [[0, 2], [0, 0]]
    assert not found["object_edges"][1:].any()


def test_a_predicate_that_training_lacks_is_unknown() -> None:
    extra = SceneObjects(scenes(), [], [], 3)
    assert gathered(extra, ("1", "a", a_text(2)))["object_edges"][0].tolist() == [
        [0, 1, 0],
        [0, 0, 1],
        [1, 0, 0],
    ]


def test_vocabularies_are_of_the_training_images_and_the_objects_that_count() -> None:
    assert scene_vocabularies(scenes(), ["a", None], 3) == (["cat", "dog", "man"], ["near", "on", "under"])
    assert scene_vocabularies(scenes(), ["a"], 2) == (["dog", "man"], ["near", "on"])
    assert scene_vocabularies(scenes(), ["b"], 3) == (["cow"], [])


TREES = {"1": [1, -1, 1], "2": [-1, 0, 1], "3": [-1]}


def structure(mode: str = "", most: int = 3) -> Structure:
    rows = [{"id": name, "words": ["x"] * len(heads), "head": heads} for name, heads in TREES.items()]
    return Structure(scenes(), table_of(DEPENDENCIES, rows), most, mode)


def wanted(sample: str) -> np.ndarray:
    """Return R of a sample beside the image a."""
    edges = [(word, head) for word, head in enumerate(TREES[sample]) if head >= 0]
    image = neighbourhoods(3, [(0, 1), (2, 0), (1, 2)])
    return structural_weights(image, neighbourhoods(len(TREES[sample]), edges))


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_weights_stand_at_first_sub_words_and_sum_to_the_same_however_words_are_split(pieces: int) -> None:
    text = a_text(3, pieces)
    found = gathered(structure(), ("1", "a", text))["structure"][0].numpy()
    assert np.array_equal(found[:, list(text.starts)], wanted("1"))
    assert found.sum() == pytest.approx(wanted("1").sum())
    assert (np.delete(found, list(text.starts), axis=1) == 0).all()


def test_a_shuffled_image_brings_its_own_scene_and_no_image_brings_nothing() -> None:
    text = a_text(3)
    found = gathered(structure(), ("2", "a", text), ("1", "c", text), ("1", None, text), ("1", "x", text))[
        "structure"
    ]
    assert np.array_equal(found[0].numpy()[:, list(text.starts)], wanted("2"))
    assert not found[1:].any()


def test_reading_twice_gives_the_same_and_computes_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = structure()
    first = gathered(extra, ("1", "a", a_text(3)))["structure"]
    monkeypatch.setattr("hmnet_pipe.stages.learning.graphs.structural_weights", None)
    again = gathered(extra, ("1", "a", a_text(3)), ("1", "a", a_text(3)))["structure"]
    assert torch.equal(again, torch.cat([first, first]))


def test_words_that_were_dropped_have_no_place() -> None:
    pieces = [[5]] * 2 + [[6, 6, 6]]
    text = encode_pair(pieces, (0, 1), (1, 2), limit=9, special=(1, 2), markers=MARKERS)
    assert text.starts == (2, 5, -1)
    found = gathered(structure(), ("1", "a", text))["structure"][0].numpy()
    assert np.array_equal(found[:, [2, 5]], wanted("1")[:, :2])
    assert found.sum() == pytest.approx(wanted("1")[:, :2].sum())


def test_starts_are_where_each_word_begins() -> None:
    text = encode_words([[5, 6], [7], [8, 8]], limit=7, special=(1, 2))
    assert text.starts == (1, 3, 4)
    assert encode_words([[5, 6], [7], [8, 8]], limit=5, special=(1, 2)).starts == (1, 3, -1)


def test_shuffled_weights_are_the_same_numbers_in_other_places_every_time() -> None:
    found = [gathered(structure("shuffled"), ("1", "a", a_text(3)))["structure"] for _ in range(2)]
    assert torch.equal(*found)
    plain = gathered(structure(), ("1", "a", a_text(3)))["structure"]
    assert not torch.equal(found[0], plain)
    assert torch.equal(found[0].flatten().sort().values, plain.flatten().sort().values)


def test_a_sample_without_a_tree_has_words_without_edges() -> None:
    found = gathered(structure(), ("unknown", "a", a_text(3)))["structure"][0].numpy()
    image = neighbourhoods(3, [(0, 1), (2, 0), (1, 2)])
    expected = structural_weights(image, neighbourhoods(3, []))
    assert np.array_equal(found[:, list(a_text(3).starts)], expected)


def test_trees_of_other_texts_are_refused() -> None:
    with pytest.raises(StageError, match="run `hmnet-pipe dependencies` again"):
        gathered(structure(), ("1", "a", a_text(4)))
