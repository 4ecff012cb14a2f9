"""The cases of a report: chosen samples with their pictures, and what the model's answers depend on."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...manifests.fingerprint import digest_file
from ...manifests.run import RunFolder
from ...manifests.schemas import DETECTIONS, IMAGES, MENTION_BOXES, SPLITS
from ...manifests.tables import read_table
from ...manifests.trial import Trial
from ...stages.evaluate.cases import HELPED, HURT, NAMED, SURE, WRONG, choose, named
from ...stages.evaluate.examined import Examined, KeptCases
from ...stages.learning.columns import rows_in_turn, rows_named, rows_of
from ...stages.learning.errors import Entity, found_of
from ...stages.learning.inputs import open_extras
from ...stages.learning.recipe import TrainSettings
from ...stages.systems.registry import TEMPERATURE_FILE, system_info
from ...stages.vision.images import UnusableImage, open_keyed
from ...stages.vision.plan import SIDES
from ..run.config import RunConfig
from .data import Box, CaseShown, Drawn, Photo, Story

__all__ = ["Compared", "stories"]

_THUMBNAIL = 320
# A report is to open from a mail: this many bytes of photos, of the 10 MB.
_PHOTO_BYTES = 6_000_000

_TITLES = {
    NAMED: "Chosen by you",
    HELPED: "The image helped",
    HURT: "The image hurt",
    WRONG: "Both are wrong",
    SURE: "Wrong, and sure of it",
}


@dataclass(frozen=True)
class Compared:
    """A training and what its answers are compared with.

    ours, others: predictions of the same samples. title: of what gave the others. errors: of ours, with their
    probabilities. made_from: what ours follow from.
    """

    run: RunFolder
    trial: Trial
    split: str
    task: str
    negative: str | None
    ours: pa.Table
    others: pa.Table
    title: str
    errors: pa.Table
    made_from: Mapping[str, str]


def stories(
    compared: Compared,
    samples: pa.Table,
    ids: Sequence[str],
    *,
    images: bool,
    texts: bool,
    recorded: bool,
) -> tuple[tuple[Story, ...], dict[str, int] | None]:
    """Return the cases in groups, and how many texts of each split the model reads in part.

    ids: of samples of the split that are shown besides. images, texts: whether photos and words are shown.
    recorded: no model is opened: it is not said what answers depend on, nor what is read in part (None).
    """
    task, negative = compared.task, compared.negative
    cases = [
        *named(compared.ours, ids, task, negative),
        *choose(compared.ours, compared.others, task, negative, _probabilities(compared.errors)),
    ]
    numbers = pa.array([case.number for case in cases], pa.int64())
    names = compared.ours["id"].take(numbers).to_pylist()
    rows = rows_named(rows_of(samples, "split", compared.split), names).to_pylist()
    ours = compared.ours["predicted"].take(numbers).to_pylist()
    others = rows_named(compared.others.select(["id", "predicted"]), names)["predicted"].to_pylist()
    wanted = [(name, case.answer) for name, case in zip(names, cases, strict=True)]
    kept = _kept(compared, samples, wanted, recorded)
    examined = [kept.cases.get(one) if kept is not None else None for one in wanted]
    truncated = dict(kept.truncated) if kept is not None else None
    photos = _photos(compared.run, [row["image_key"] for row in rows], images)
    drawn = _drawn(compared.run, rows, texts)
    shown: dict[str, list[CaseShown]] = {group: [] for group in _TITLES}
    all_said = zip(ours, others, strict=True)
    for case, row, answers, found, photo in zip(cases, rows, all_said, examined, photos, strict=True):
        gold = row["tags"] if task == "ner" else [row["relation"]]
        said = zip((compared.trial.title, compared.title), answers, strict=True)
        shown[case.group].append(
            CaseShown(
                id=row["id"],
                tokens=tuple(row["tokens"]) if texts else None,
                gold=tuple(found_of(gold, task)),
                said={who: tuple(found_of(one, task)) for who, one in said if one is not None},
                pair=None if task == "ner" else (tuple(row["head"]), tuple(row["tail"])),
                photo=None if photo is None else replace(photo, drawn=drawn.get(row["id"], ())),
                examined=found,
                answer=case.answer,
            )
        )
    rules = _rules(compared)
    groups = [group for group in _TITLES if group != NAMED or ids]
    made = tuple(Story(group, _TITLES[group], rules[group], tuple(shown[group])) for group in groups)
    return made, truncated


def _rules(compared: Compared) -> dict[str, str]:
    """Return how the cases of each group are chosen."""
    ours, others = compared.trial.title, compared.title
    most = "samples with the most errors of {} come first"
    alike = "Ties are broken by id. Only samples with an image are chosen."
    return {
        NAMED: "The samples that --cases names.",
        HELPED: f"{ours} has every answer right and {others} has not; {most.format(others)}. {alike}",
        HURT: f"{others} has every answer right and {ours} has not; {most.format(ours)}. {alike}",
        WRONG: f"Neither {ours} nor {others} has every answer right; {most.format(ours)}. {alike}",
        SURE: f"The wrong answers of {ours} with the greatest probability, in no sample of another group.",
    }


def _probabilities(errors: pa.Table) -> dict[tuple[str, Entity], float]:
    """Return the probability of each wrong answer, by its sample."""
    found = {}
    for row in rows_in_turn(errors, ["id", "predicted_type", "predicted_words", "probability"]):
        if row["predicted_type"] is not None and row["probability"] is not None:
            start, end = row["predicted_words"] or (0, 1)
            found[row["id"], (row["predicted_type"], start, end - 1)] = row["probability"]
    return found


def _kept(
    compared: Compared,
    samples: pa.Table,
    wanted: Sequence[tuple[str, Entity]],
    recorded: bool,
) -> KeptCases | None:
    """Return what the answers to samples depend on: as it was kept, or else asked of the model and kept.

    wanted: ids and answers. recorded: nothing is asked, and None returned where nothing is kept.
    """
    folder = compared.run.model(compared.trial)
    path = folder / f"cases-{compared.split}.json"
    temperature = folder / TEMPERATURE_FILE
    at = {"temperature": digest_file(temperature)} if temperature.is_file() else {}
    made_from = {**compared.made_from, **at}
    kept = KeptCases.known(path, made_from)
    wanted = list(dict.fromkeys(wanted))  # a case that is named may also be chosen
    if recorded or (kept is not None and kept.cases.keys() >= set(wanted)):
        return kept
    found, truncated = _examined(compared, samples, wanted)
    made = KeptCases(made_from, truncated, dict(zip(wanted, found, strict=True)))
    made.write(path)
    return made


def _examined(
    compared: Compared, samples: pa.Table, wanted: Sequence[tuple[str, Entity]]
) -> tuple[list[Examined], dict[str, int]]:
    """Ask the model what its answers depend on, and how many texts of each split it reads in part."""
    from ...stages.evaluate.occlusion import examine
    from ...stages.learning.opened import open_model, open_visuals
    from ...stages.learning.splits import encode_split
    from ...stages.text.encoded import shortened

    recipe = RunConfig.read(compared.run.config).of(TrainSettings)
    folder = compared.run.model(compared.trial)
    opened = open_model(folder, device=recipe.device, precision=recipe.precision)
    config, info = opened.config, system_info(compared.trial.system)
    splits = {
        name: encode_split(samples, name, opened.reader, task=config.task, max_length=config.max_length)
        for name in SPLITS
    }
    truncated = {name: shortened(split.texts, split.tokens) for name, split in splits.items()}
    feature_set = info.feature_set(compared.trial.features)
    visuals = open_visuals(opened, compared.run, None, feature_set)
    extras = open_extras(info, compared.run, config.options, opened.reader, config.max_length)
    split = splits[compared.split]
    names = pa.array([id_ for id_, _ in wanted], pa.string())
    chosen = split.take(pc.index_in(names, pa.array(split.ids, pa.string())).to_pylist())
    answers = [answer for _, answer in wanted]
    return examine(opened, replace(chosen, extras=extras), answers, visuals), truncated


def _photos(run: RunFolder, keys: Sequence[str | None], images: bool) -> list[Photo | None]:
    """Return a thumbnail of each image with its boxes. images: whether the photos themselves are shown."""
    wanted = pa.array(sorted({key for key in keys if key is not None}), pa.string())
    table = read_table(run.images, IMAGES, "prepare", ["key", "path", "width", "height"])
    rows = {row["key"]: row for row in table.filter(pc.is_in(table["key"], wanted)).to_pylist()}
    boxes = _boxes(run, wanted, rows)
    left = _PHOTO_BYTES
    photos: dict[str, Photo] = {}
    for key in dict.fromkeys(key for key in keys if key in rows):
        assert key is not None
        row = rows[key]
        scale = _THUMBNAIL / max(row["width"], row["height"])
        size = (max(1, round(row["width"] * scale)), max(1, round(row["height"] * scale)))
        uri = _thumbnail(Path(row["path"]), key, size) if images else None
        if uri is not None and len(uri) > left:
            uri = None
        left -= len(uri or "")
        photos[key] = Photo(uri, *size, tuple(boxes.get(key, ())))
    return [None if key is None else photos.get(key) for key in keys]


def _boxes(run: RunFolder, wanted: pa.Array, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Box]]:
    """Return the detected objects of images by their keys, in the order of their views."""
    if not run.detections.is_file():
        return {}
    table = read_table(run.detections, DETECTIONS, "detect")
    found: dict[str, list[Box]] = {}
    for row in table.filter(pc.is_in(table["image_key"], wanted)).to_pylist():
        image = rows[row["image_key"]]
        x0, y0, x1, y1 = (row[side] for side in SIDES)
        width, height = image["width"], image["height"]
        sides = (x0 / width, y0 / height, x1 / width, y1 / height)
        found.setdefault(row["image_key"], []).append(Box(row["rank"] + 1, row["label"], row["score"], sides))
    return found


def _drawn(run: RunFolder, samples: Sequence[Mapping[str, Any]], texts: bool) -> dict[str, tuple[Drawn, ...]]:
    """Return the boxes of the mentions of samples by their ids. texts: whether they are called by words."""
    if not run.mention_boxes.is_file():
        return {}
    shown = {row["id"]: row for row in samples if row["image_key"] is not None}
    table = read_table(run.mention_boxes, MENTION_BOXES, "prepare")
    table = table.filter(
        pc.and_(pc.is_in(table["id"], pa.array(shown, pa.string())), pc.is_valid(table["x0"]))
    )
    images = read_table(run.images, IMAGES, "prepare", ["key", "width", "height"])
    keys = pa.array({row["image_key"] for row in shown.values()}, pa.string())
    images = images.filter(pc.is_in(images["key"], keys))
    sizes = {row["key"]: (row["width"], row["height"]) * 2 for row in images.to_pylist()}
    found: dict[str, list[Drawn]] = {}
    for row in table.to_pylist():
        sample = shown[row["id"]]
        said = [row["type"], *(sample["tokens"][slice(*row["words"])] if texts else ())]
        x0, y0, x1, y1 = (row[side] / of for side, of in zip(SIDES, sizes[sample["image_key"]], strict=True))
        found.setdefault(row["id"], []).append(Drawn(" ".join(said), (x0, y0, x1, y1)))
    return {name: tuple(boxes) for name, boxes in found.items()}


def _thumbnail(path: Path, key: str, size: tuple[int, int]) -> str | None:
    """Return a photo as a data URI, or None where it is not what it was any more."""
    try:
        image = open_keyed(path, key)
    except UnusableImage:
        return None
    file = BytesIO()
    image.resize(size).save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
