"""What a system reads of a sample besides its words and its image's features."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..systems.objects import GEOMETRY, UNKNOWN, vocabulary_ids
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

    detections: schema DETECTIONS. sizes: width and height of each image in pixels. vocabulary: see
    vocabulary_ids. most: the objects of an image that count.
    """

    def __init__(
        self,
        detections: pa.Table,
        sizes: Mapping[str, tuple[int, int]],
        vocabulary: Sequence[str],
        most: int,
    ) -> None:
        self.most = most
        ids = vocabulary_ids(vocabulary)
        self._rows = {
            key: (
                [ids.get(row["label"], UNKNOWN) for row in rows],
                [_geometry(row, *sizes[key]) for row in rows],
            )
            for key, rows in _best(detections, most).items()
        }

    def gather(
        self, ids: Sequence[str], keys: Sequence[str | None], texts: Sequence[EncodedText], length: int
    ) -> dict[str, Tensor]:
        labels = np.zeros((len(keys), self.most), np.int64)
        geometry = np.zeros((len(keys), self.most, GEOMETRY), np.float32)
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
        self._labels = {
            key: [pieces[row["label"]] for row in rows] for key, rows in _best(detections, most).items()
        }

    def text(self, text: EncodedText, key: str | None) -> EncodedText:
        labels = self._labels.get(key, []) if key is not None else []
        return self._reader.followed(text, labels, limit=self._limit)


def _best(detections: pa.Table, most: int) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the best `most` objects of each image, best first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in detections.sort_by([("image_key", "ascending"), ("rank", "ascending")]).to_pylist():
        rows = found.setdefault(row["image_key"], [])
        if len(rows) < most:
            rows.append(row)
    return found


def _geometry(row: Mapping[str, Any], width: int, height: int) -> list[float]:
    x0, x1 = row["x0"] / width, row["x1"] / width
    y0, y1 = row["y0"] / height, row["y1"] / height
    return [x0, y0, x1, y1, x1 - x0, y1 - y0, (x1 - x0) * (y1 - y0), row["score"]]
