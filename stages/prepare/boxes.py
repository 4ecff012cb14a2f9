"""The boxes of mentions: those that texts and the user's files give, checked, as rows of MENTION_BOXES.

What is wrong with a box, an object or a file is a row of the problems table, and the others are used.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ...manifests.schemas import MENTION_BOXES, PROBLEMS
from ...manifests.tables import table_of
from ..learning.entities import Entity, entities_of
from ..text.written import shorten
from ..vision.known import BadRecord, box_in
from ..vision.plan import SIDES, Box
from .columns import Samples
from .formats.voc import Annotation, Unparsed, VocFolder

__all__ = ["mention_boxes"]


@dataclass(frozen=True)
class _Sample:
    """A sample whose own image can be used. place: its number in the table. words: of each mention."""

    place: int
    id: str
    image: str
    key: str
    mentions: list[Entity]
    words: list[str]


@dataclass
class _Found:
    """What has been found so far.

    boxes: by the place of a sample, those of each mention, None of one that nobody looked for. problems: rows
    of PROBLEMS.
    """

    boxes: dict[int, list[list[Box] | None]] = field(default_factory=dict)
    problems: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, where: str, reason: str, sample: str = "") -> None:
        self.problems.append({"kind": "box", "sample": sample, "where": where, "reason": reason})


def mention_boxes(
    samples: Samples,
    images: pa.ChunkedArray,
    keys: pa.ChunkedArray,
    sizes: Mapping[str, tuple[int, int]],
    folder: VocFolder | None,
) -> tuple[pa.Table, pa.Table]:
    """Return the boxes of mentions (schema MENTION_BOXES) and what was refused (PROBLEMS).

    images, keys: name and key of the image that each sample has, in the order of the table: boxes are those
    of the image that the text names, and count for no other. sizes: width and height of usable images by key.
    folder: the files of images whose texts say nothing of boxes. A mention that they do not name is not in
    the image.
    """
    found = _Found()
    if folder is not None or samples.marks.num_rows:
        used = {sample.place: sample for sample in _usable(samples, images, keys)}
        marked = _of_texts(samples, used, sizes, found)
        if folder is not None:
            rest = [sample for place, sample in used.items() if place not in marked]
            named = {folder.of_image(name) for name in samples.column("image").to_pylist() if name}
            _of_files(folder, rest, named, sizes, found)
        return table_of(MENTION_BOXES, _rows(found.boxes, used)), table_of(PROBLEMS, found.problems)
    return MENTION_BOXES.empty_table(), PROBLEMS.empty_table()


def _usable(samples: Samples, images: pa.ChunkedArray, keys: pa.ChunkedArray) -> Iterator[_Sample]:
    columns = [samples.column(name).to_pylist() for name in ("id", "image", "tokens", "tags")]
    for place, (name, own, tokens, tags, image, key) in enumerate(
        zip(*columns, images.to_pylist(), keys.to_pylist(), strict=True)
    ):
        if key is not None and own == image:
            mentions = entities_of(tags)
            words = [_plain(" ".join(tokens[first : last + 1])) for _, first, last in mentions]
            yield _Sample(place, name, image, key, mentions, words)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _of_texts(
    samples: Samples, used: Mapping[int, _Sample], sizes: Mapping[str, tuple[int, int]], found: _Found
) -> set[int]:
    """Add the boxes that texts have; return the places of the samples that have them."""
    place_of = {row: place for place, row in enumerate(samples.order.to_pylist())}
    marks = {place_of[mark["row"]]: mark for mark in samples.marks.to_pylist()}
    for place in sorted(marks.keys() & used.keys()):
        sample, where = used[place], marks[place]["where"]
        found.boxes[place] = [
            None if given is None else _checked(given, sample, words, where, sizes, found)
            for given, words in zip(marks[place]["boxes"], sample.words, strict=True)
        ]
    return set(marks)


def _checked(
    given: Sequence[Any],
    sample: _Sample,
    words: str,
    where: str,
    sizes: Mapping[str, tuple[int, int]],
    found: _Found,
) -> list[Box] | None:
    """Return the sound ones of a mention's boxes; None where it has none but had some."""
    sound: list[Box] = []
    for box in given:
        try:
            sound.append(box_in(list(box), sizes[sample.key], f" of {shorten(words)}"))
        except BadRecord as error:
            found.refuse(where, f"{error}; correct it", sample.id)
    return sound if sound or not given else None


def _of_files(
    folder: VocFolder,
    samples: Iterable[_Sample],
    named: set[str | None],
    sizes: Mapping[str, tuple[int, int]],
    found: _Found,
) -> None:
    """Add the boxes of a folder's files. named: the files whose images texts name, usable or not."""
    by_file: dict[str, list[_Sample]] = defaultdict(list)
    for sample in samples:
        if (name := folder.of_image(sample.image)) is None:
            found.boxes[sample.place] = [[] for _ in sample.mentions]
        else:
            by_file[name].append(sample)
    for name in sorted(folder.contents):
        if name not in named:
            found.refuse(
                f"{name}.xml", "no text names this image; add its texts to the splits, or remove the file"
            )
        elif name in by_file:
            try:
                annotation = folder.annotation(name)
            except Unparsed as error:
                found.refuse(f"{name}.xml:{error.line}", f"{error}; write it again")
                continue
            _of_file(name, annotation, by_file[name], sizes, found)


def _of_file(
    name: str,
    annotation: Annotation,
    samples: Sequence[_Sample],
    sizes: Mapping[str, tuple[int, int]],
    found: _Found,
) -> None:
    """Add the boxes of one file to the samples of its image."""
    alone = samples[0].id if len(samples) == 1 else ""
    known = {words for sample in samples for words in sample.words}
    for one in annotation.objects:
        if one.name not in known:
            said = f"{shorten(one.name)} is no mention" if one.name else "an object has no name"
            there = ", ".join(map(shorten, sorted(known))) or "none"
            found.refuse(
                f"{name}.xml:{one.line}",
                f"{said}; the text's mentions are {there}: correct the name or the labels",
                alone,
            )
    # One name may be that of several images, one in each split.
    for key in sorted({sample.key for sample in samples}):
        size = sizes[key]
        if annotation.size is not None and annotation.size != size:
            was = " x ".join(map(str, annotation.size))
            found.refuse(
                f"{name}.xml",
                f"its boxes are of an image of {was}, and the image has {size[0]} x {size[1]}; give the "
                "image that was annotated",
                alone,
            )
            continue
        sound: dict[str, list[Box]] = defaultdict(list)
        seen = {one.name for one in annotation.objects}
        for one in annotation.objects:
            if one.name in known:
                try:
                    box = box_in(one.box, size, f" of {shorten(one.name)}")
                except BadRecord as error:
                    found.refuse(f"{name}.xml:{one.line}", f"{error}; correct it", alone)
                    continue
                sound[one.name].append(box)
        for sample in samples:
            if sample.key == key:
                found.boxes[sample.place] = [
                    sound.get(words, None if words in seen else []) for words in sample.words
                ]


def _rows(
    boxes: Mapping[int, Sequence[list[Box] | None]], used: Mapping[int, _Sample]
) -> Iterator[dict[str, Any]]:
    for place in sorted(boxes):
        sample = used[place]
        for (kind, first, last), found in zip(sample.mentions, boxes[place], strict=True):
            mention = {"id": sample.id, "words": [first, last + 1], "type": kind}
            for box in dict.fromkeys(found) if found else [] if found is None else [()]:
                yield {**mention, **dict(zip(SIDES, box, strict=False))}
