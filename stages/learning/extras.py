"""What a system reads of a sample besides its words and its image's features."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..text.limits import EncodedText
from ..text.subwords import Subwords

__all__ = ["Extra", "LabelText", "ObjectLabels", "object_vocabulary"]


class Extra:
    """One thing more that a system reads of a sample. What it reads of images follows a shuffled image."""

    def text(self, text: EncodedText, key: str | None) -> EncodedText:
        """Return a text as the system reads it beside the image `key`."""
        return text

    def gather(
        self, ids: Sequence[str], keys: Sequence[str | None], texts: Sequence[EncodedText], length: int
    ) -> dict[str, Tensor]:
        """Return fields of the Batch of these samples by their names.

        ids, keys, texts: of the samples. length: of the batch's sub-words, padding included.
        """
        return {}


def object_vocabulary(detections: pa.Table, keys: Sequence[str | None]) -> list[str]:
    """Return the labels of the objects of these images (schema DETECTIONS), in alphabetical order."""
    wanted = set(keys)
    rows = zip(detections["image_key"].to_pylist(), detections["label"].to_pylist(), strict=True)
    return sorted({label for key, label in rows if key in wanted})


class ObjectLabels(Extra):
    """The labels and boxes of an image's detected objects, best first.

    detections: schema DETECTIONS. sizes: width and height of each image in pixels. vocabulary: label number i
    has the id i + 2; 0 is no object, and 1 a label that is not there. most: the objects of an image that
    count.
    """

    def __init__(
        self,
        detections: pa.Table,
        sizes: Mapping[str, tuple[int, int]],
        vocabulary: Sequence[str],
        most: int,
    ) -> None:
        self.most = most
        ids = {label: number for number, label in enumerate(vocabulary, start=2)}
        self._labels: dict[str, list[str]] = {}
        self._rows: dict[str, tuple[list[int], list[list[float]]]] = {}
        for row in detections.sort_by([("image_key", "ascending"), ("rank", "ascending")]).to_pylist():
            names, (labels, geometry) = (
                self._labels.setdefault(row["image_key"], []),
                self._rows.setdefault(row["image_key"], ([], [])),
            )
            if len(labels) < most:
                names.append(row["label"])
                labels.append(ids.get(row["label"], 1))
                geometry.append(_geometry(row, *sizes[row["image_key"]]))

    def labels(self, key: str | None) -> list[str]:
        """Return the labels of an image's objects, best first."""
        return self._labels.get(key, []) if key is not None else []

    def gather(
        self, ids: Sequence[str], keys: Sequence[str | None], texts: Sequence[EncodedText], length: int
    ) -> dict[str, Tensor]:
        labels = np.zeros((len(keys), self.most), np.int64)
        geometry = np.zeros((len(keys), self.most, 8), np.float32)
        for place, key in enumerate(keys):
            if key in self._rows:
                found, boxes = self._rows[key]
                labels[place, : len(found)], geometry[place, : len(found)] = found, boxes
        return {
            "object_labels": torch.from_numpy(labels),
            "object_mask": torch.from_numpy(labels > 0),
            "object_geometry": torch.from_numpy(geometry),
        }


class LabelText(Extra):
    """The labels of an image's detected objects, best first, as a second segment behind the text.

    detections: schema DETECTIONS. most: the objects of an image that count. limit: the sub-words that a text
    may have with them.
    """

    def __init__(self, detections: pa.Table, reader: Subwords, *, most: int, limit: int) -> None:
        self._reader, self._limit = reader, limit
        names = sorted(set(detections["label"].to_pylist()))
        pieces = dict(zip(names, reader.phrases(names), strict=True))
        self._labels: dict[str, list[list[int]]] = {}
        for row in detections.sort_by([("image_key", "ascending"), ("rank", "ascending")]).to_pylist():
            found = self._labels.setdefault(row["image_key"], [])
            if len(found) < most:
                found.append(pieces[row["label"]])

    def text(self, text: EncodedText, key: str | None) -> EncodedText:
        labels = self._labels.get(key, []) if key is not None else []
        return self._reader.followed(text, labels, limit=self._limit)


def _geometry(row: Mapping[str, Any], width: int, height: int) -> list[float]:
    x0, x1 = row["x0"] / width, row["x1"] / width
    y0, y1 = row["y0"] / height, row["y1"] / height
    return [x0, y0, x1, y1, x1 - x0, y1 - y0, (x1 - x0) * (y1 - y0), row["score"]]
