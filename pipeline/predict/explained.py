"""What a model looked at in posts, as JSON values: for each word, the parts of the image and their weights.

    {"over": "views",
     "image": {"width": 640, "height": 480},
     "regions": [{"label": "image", "box": {"xmin": 0, "ymin": 0, "xmax": 640, "ymax": 480}}, ...],
     "spans": [[0, 5], ...],
     "attention": [[[0.02, ...], ...], ...],
     "gates": [[[0.25, ...], ...], ...],
     "word_gates": {"visual": [0.7, ...]}}

over: one of stages.systems.system.OVER. regions: what is looked at, in pixels of the upright image. spans:
the words, in characters of the text, or null, the head and the tail of a pair. attention: layer, span,
region. gates: layer, region, level; word_gates: of each span. The last two are there where the system has
them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isqrt
from typing import Any

from ...cache.spec import ALL, IMAGE
from ...manifests.errors import InputError
from ...stages.learning.opened import OpenModel
from ...stages.predict.posts import Post, Words
from ...stages.predict.results import USED, Result, Seen
from ...stages.predict.work import Given, looked_at
from .visual import ImageRun

__all__ = ["with_explanations"]

_DECIMALS = 4


def with_explanations(
    results: Sequence[Result],
    model: OpenModel,
    run: ImageRun,
    posts: Sequence[Post],
    worded: Sequence[Words | InputError],
    images: Sequence[Mapping[str, Any]],
) -> list[Result]:
    """Return the results, those whose image was used with what the model looked at.

    run: the images as the model reads them. images: their rows of IMAGES. Of a system that has nothing to
    show the results stay as they are.
    """
    words = {i: one for i, one in enumerate(worded) if isinstance(one, Words)}
    chosen = [i for i, one in enumerate(results) if i in words and one.image.status == USED and not one.error]
    found = list(results)
    if not chosen:
        return found
    visuals, extras = run.open()
    keys = [results[i].image.key for i in chosen]
    given = Given([str(i) for i in chosen], [words[i] for i in chosen], keys, visuals, extras)
    pairs = None
    if model.config.task == "re":
        pairs = []
        for place, i in enumerate(chosen):
            head, tail = posts[i].head, posts[i].tail
            assert head is not None  # a model of relations alone finds an error in a post without a pair
            assert tail is not None
            pairs.append((place, words[i].covering("head", head), words[i].covering("tail", tail)))
    try:
        rows = looked_at(model, given, pairs)
    except InputError:  # it has no gate and no attention
        return found
    sizes = {row["key"]: (row["width"], row["height"]) for row in images}
    objects = run.objects(keys)
    whole = run.spec is not None and run.spec.regions in (ALL, IMAGE)
    for place, (i, row) in enumerate(zip(chosen, rows, strict=True)):
        if pairs is None:
            spans: list[tuple[int, int] | None] = [*words[i].offsets[: len(row["positions"])]]
        else:
            spans = [None, *(words[i].characters(span) for span in pairs[place][1:])]
        key = row["image_key"]
        seen = [Seen.of_row(each) for each in objects.get(key, ())]
        found[i] = replace(found[i], explanation=_as_json(row, spans, sizes[key], seen, whole))
    return found


def _as_json(
    row: Mapping[str, Any],
    spans: Sequence[tuple[int, int] | None],
    size: tuple[int, int],
    objects: Sequence[Seen],
    whole: bool,
) -> dict[str, Any]:
    """Return a row of EXPLANATIONS as the module says. whole: whether the first view is the whole image."""
    width, height = size
    count = len(row["views"])
    if row["over"] == "cells":
        regions = _cells(width, height, isqrt(count))
    else:
        regions = [one.to_json() for one in objects]
        if row["over"] == "views" and whole:
            regions.insert(0, {"label": "image", "box": _box(0, 0, width, height)})
    there = [j for j in range(count) if row["views"][j]]

    def picked(values: Sequence[float]) -> list[float]:
        return [round(values[j], _DECIMALS) for j in there]

    values: dict[str, Any] = {
        "over": row["over"],
        "image": {"width": width, "height": height},
        "regions": [regions[j] for j in there],
        "spans": [None if span is None else list(span) for span in spans],
        "attention": [[picked(of_span) for of_span in layer] for layer in row["attention"]],
    }
    if row["gates"] is not None:
        values["gates"] = [[_rounded(layer[j]) for j in there] for layer in row["gates"]]
    if row["word_gates"]:
        values["word_gates"] = {name: _rounded(of_spans) for name, of_spans in row["word_gates"]}
    return values


def _cells(width: int, height: int, side: int) -> list[dict[str, Any]]:
    """Return the cells of a grid over the image, row by row."""
    return [
        {
            "label": f"row {row + 1}, column {column + 1}",
            "box": _box(
                width * column / side,
                height * row / side,
                width * (column + 1) / side,
                height * (row + 1) / side,
            ),
        }
        for row in range(side)
        for column in range(side)
    ]


def _box(x0: float, y0: float, x1: float, y1: float) -> dict[str, float]:
    return {"xmin": round(x0, 2), "ymin": round(y0, 2), "xmax": round(x1, 2), "ymax": round(y1, 2)}


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, _DECIMALS) for value in values]
