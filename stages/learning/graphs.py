"""Scene graphs and dependency trees as a batch has them: objects, relations, and structural alignment."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from ...manifests.errors import StageError
from ..systems.objects import GEOMETRY, UNKNOWN, vocabulary_ids
from ..text.limits import EncodedText
from .extras import Extra
from .structure import Histograms, neighbourhoods, structural_weights

__all__ = ["SHUFFLED", "SceneObjects", "Structure", "scene_vocabularies"]

SHUFFLED = "shuffled"
"""Structural weights whose places are exchanged at random, the same way for a sample and image every time."""


def scene_vocabularies(
    scenes: pa.Table, keys: Sequence[str | None], most: int
) -> tuple[list[str], list[str]]:
    """Return the labels and predicates of these images' best `most` objects, each in alphabetical order.

    scenes: schema SCENES.
    """
    wanted = set(keys)
    labels: set[str] = set()
    predicates: set[str] = set()
    for row in _rows(scenes, "image_key", "labels", "subjects", "predicates", "objects"):
        if row["image_key"] in wanted:
            labels.update(row["labels"][:most])
            ends = zip(row["subjects"], row["objects"], row["predicates"], strict=True)
            predicates.update(said for subject, object_, said in ends if max(subject, object_) < most)
    return sorted(labels), sorted(predicates)


class SceneObjects(Extra):
    """The objects of an image's scene, best first, and the relations between them.

    scenes: schema SCENES. labels, predicates: the vocabularies (see vocabulary_ids). most: the objects of an
    image that count. Of several relations of one subject and object, the strongest counts.
    """

    def __init__(self, scenes: pa.Table, labels: Sequence[str], predicates: Sequence[str], most: int) -> None:
        label_ids, predicate_ids = vocabulary_ids(labels), vocabulary_ids(predicates)
        # One row more, of an image that is not there.
        images = scenes.num_rows + 1
        self._labels = np.zeros((images, most), np.int64)
        self._geometry = np.zeros((images, most, GEOMETRY), np.float32)
        self._edges = np.zeros((images, most, most), np.int16)
        self._place: dict[str | None, int] = {}
        for place, row in enumerate(_rows(scenes, *scenes.schema.names)):
            self._place[row["image_key"]] = place
            count = min(most, len(row["labels"]))
            if count:
                boxes = np.array(row["boxes"][:count], np.float32)
                size = boxes[:, 2:] - boxes[:, :2]
                scores = np.array(row["scores"][:count], np.float32)
                numbers = (boxes, size, size.prod(axis=1, keepdims=True), scores[:, None])
                self._geometry[place, :count] = np.concatenate(numbers, axis=1)
                self._labels[place, :count] = [label_ids.get(name, UNKNOWN) for name in row["labels"][:count]]
            said = zip(row["subjects"], row["objects"], row["predicates"], strict=True)
            for subject, object_, predicate in said:  # by falling strength: the first one stays
                if max(subject, object_) < most and not self._edges[place, subject, object_]:
                    self._edges[place, subject, object_] = predicate_ids.get(predicate, UNKNOWN)

    def gather(
        self, ids: Sequence[str], keys: Sequence[str | None], texts: Sequence[EncodedText], length: int
    ) -> dict[str, Tensor]:
        places = [self._place.get(key, -1) for key in keys]
        labels = torch.from_numpy(self._labels[places])
        return {
            "object_labels": labels,
            "object_mask": labels > 0,
            "object_geometry": torch.from_numpy(self._geometry[places]),
            "object_edges": torch.from_numpy(self._edges[places].astype(np.int64)),
        }


class Structure(Extra):
    """MEGA's R': the structural alignment of objects with the first sub-words of words.

    scenes, dependencies: schemas SCENES and DEPENDENCIES. most: the objects of an image that count. mode:
    SHUFFLED, or "" for the weights in their places. A sample without a tree has words without edges. What is
    computed of a tree, a scene, or both is kept, so that an epoch costs no more than a look-up.
    """

    def __init__(self, scenes: pa.Table, dependencies: pa.Table, most: int, mode: str = "") -> None:
        self.most, self.mode = most, mode
        self._scenes = {
            row["image_key"]: (
                min(most, len(row["labels"])),
                [
                    (subject, object_)
                    for subject, object_ in zip(row["subjects"], row["objects"], strict=True)
                    if max(subject, object_) < most
                ],
            )
            for row in _rows(scenes, "image_key", "labels", "subjects", "objects")
        }
        self._trees: Mapping[str, list[int]] = {
            row["id"]: row["head"] for row in _rows(dependencies, "id", "head")
        }
        self._of_scene: dict[str, Histograms] = {}
        self._of_tree: dict[str, Histograms] = {}
        self._weights: dict[tuple[str, str], npt.NDArray[np.float32]] = {}

    def weights(self, sample: str, key: str, words: int) -> npt.NDArray[np.float32]:
        """Return R of a sample of so many words beside the image `key`: (objects of the image, words).

        Raises StageError where the sample's tree has another number of words.
        """
        if (sample, key) not in self._weights:
            if key not in self._of_scene:
                self._of_scene[key] = neighbourhoods(*self._scenes[key])
            if sample not in self._of_tree:
                self._of_tree[sample] = neighbourhoods(words, self._edges(sample, words))
            found = structural_weights(self._of_scene[key], self._of_tree[sample])
            if self.mode == SHUFFLED:
                seed = hashlib.sha256(f"{sample}\n{key}".encode()).digest()
                order = np.random.default_rng(int.from_bytes(seed[:8])).permutation(found.size)
                found = found.reshape(-1)[order].reshape(found.shape)
            self._weights[sample, key] = found
        return self._weights[sample, key]

    def _edges(self, sample: str, words: int) -> list[tuple[int, int]]:
        heads = self._trees.get(sample, [])
        if heads and len(heads) != words:
            raise StageError(
                f"the dependency tree of sample {sample!r} has {len(heads)} words, and its text {words}: "
                "dependencies.parquet is of other texts; run `hmnet-pipe dependencies` again"
            )
        return [(word, head) for word, head in enumerate(heads) if head >= 0]

    def gather(
        self, ids: Sequence[str], keys: Sequence[str | None], texts: Sequence[EncodedText], length: int
    ) -> dict[str, Tensor]:
        spread = np.zeros((len(ids), self.most, length), np.float32)
        for place, (sample, key, text) in enumerate(zip(ids, keys, texts, strict=True)):
            assert text.starts is not None
            if key is not None and key in self._scenes:
                weights, starts = self.weights(sample, key, len(text.starts)), np.array(text.starts)
                kept = starts >= 0
                spread[place, : len(weights), starts[kept]] = weights[:, kept].T
        return {"structure": torch.from_numpy(spread)}


def _rows(table: pa.Table, *columns: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.select(columns).to_pylist()
    return rows
