"""Samples of a run, or predictions for them, in formats that prepare reads back."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...manifests.errors import InputError, StageError, unknown_name
from ...manifests.files import atomic_path, make_folder
from ...manifests.run import RunFolder
from ...manifests.schemas import MENTION_BOXES, PREDICTIONS, SAMPLES, SPLITS
from ...manifests.tables import read_batches, read_table
from ...stages.learning.entities import entities_of
from ...stages.predict import outputs
from ...stages.predict.results import Entity, PostImage, Relation, Result, as_line
from ...stages.vision.plan import SIDES

__all__ = ["EXPORT_FORMATS", "export"]

Sample = Mapping[str, Any]


def export(
    run: RunFolder, form: str, folder: Path, *, predictions: Path | None = None, split: str = ""
) -> dict[str, int]:
    """Write each split of a run, or one, into a folder; return the samples of each file by its path.

    form: one of EXPORT_FORMATS, which are the names that prepare has for them. predictions: a model's folder,
    or a table of its predictions; only the samples that it has are written, with the labels that it gave
    them. Raises InputError for an unknown format or split, a folder that is not empty, and predictions of
    other samples.
    """
    if form == "conll":  # predict's name for it
        raise InputError("columns of words are called twitter here, as in prepare; give --format twitter")
    if form not in EXPORT_FORMATS:
        raise unknown_name("format", form, EXPORT_FORMATS)
    if split and split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    samples = [row for part in read_batches(run.samples, SAMPLES, "prepare") for row in part.to_pylist()]
    samples = _with_boxes(samples, run)
    if predictions is not None:
        samples = _with_predictions(samples, predictions)
    task = _TASK_OF.get(form)
    if any(one["task"] != task for one in samples) and task is not None:
        raise InputError(f"{form} is for the task {task}, and these samples are not; name another format")
    parts = {name: [one for one in samples if one["split"] == name] for name in SPLITS}
    chosen = {name: rows for name, rows in parts.items() if rows and split in ("", name)}
    if not chosen:
        raise InputError(f"{run.path} has no samples" + f" of the split {split}" * bool(split))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and not empty; name a new folder")
    make_folder(folder)
    written = {}
    for name, rows in chosen.items():
        target = folder / (name + _SUFFIXES[form])
        if form in _OF_RESULTS:
            if form in _WORDS_ALONE:
                rows = [{**row, "text": None} for row in rows]
            results = ((number, _result(row)) for number, row in enumerate(rows, start=1))
            outputs.write(
                _OF_RESULTS[form],
                results,
                target,
                model="hmnet-pipe" if predictions is None else str(predictions),
                samples=outputs.Samples(
                    gold=predictions is None, images=any(row["image"] is not None for row in rows)
                ),
            )
        elif form == "huggingface":
            with atomic_path(target) as temporary:
                pq.write_table(_table(rows, _label_names(samples)), temporary)
        else:
            with atomic_path(target) as temporary, temporary.open("wb") as file:
                file.writelines(as_line(_OBJECTS[form](row)).encode() for row in rows)
        written[str(target)] = len(rows)
    return written


def _with_predictions(samples: list[dict[str, Any]], place: Path) -> list[dict[str, Any]]:
    """Return the samples that a table has predictions of, with these as their labels."""
    path = place / "predictions.parquet" if place.is_dir() else place
    if not path.is_file():
        raise InputError(f"{path} is no file; name a model's folder, such as RUN/models/hmnet/seed-1")
    try:
        table = read_table(path, PREDICTIONS, columns=["id", "split", "tokens", "predicted"])
    except StageError as error:
        raise InputError(str(error)) from error
    found = {(row["split"], row["id"]): row for row in table.to_pylist()}
    chosen = [one for one in samples if (one["split"], one["id"]) in found]
    if len(chosen) != len(found) or any(
        found[one["split"], one["id"]]["tokens"] != one["tokens"] for one in chosen
    ):
        raise InputError(f"{path} is of other samples than the run's; name predictions of this run")
    labelled = []
    for one in chosen:
        labels = found[one["split"], one["id"]]["predicted"]
        label = (
            {"relation": labels[0]}
            if one["tags"] is None
            else {"tags": labels, "groups": None, "boxes": None}
        )
        labelled.append({**one, **label})
    return labelled


def _with_boxes(samples: list[dict[str, Any]], run: RunFolder) -> list[dict[str, Any]]:
    """Return the samples with the boxes of their mentions as "boxes" of JSON lines, or None."""
    found: dict[str, dict[int, list[list[float]]]] = {}
    if run.mention_boxes.is_file():
        for row in read_table(run.mention_boxes, MENTION_BOXES, "prepare").to_pylist():
            of_mention = found.setdefault(row["id"], {}).setdefault(row["words"][0], [])
            if row["x0"] is not None:
                of_mention.append([row[side] for side in SIDES])
    return [
        {
            **one,
            "boxes": [found[one["id"]].get(first) for _, first, _ in entities_of(one["tags"])]
            if one["id"] in found
            else None,
        }
        for one in samples
    ]


def _text(sample: Sample) -> tuple[str, list[tuple[int, int]]]:
    """Return the text of a sample, or else its words joined by spaces, and the places of its words."""
    if sample["text"] is not None:
        return sample["text"], [(start, end) for start, end in sample["offsets"]]
    places, at = [], 0
    for word in sample["tokens"]:
        places.append((at, at + len(word)))
        at += len(word) + 1
    return " ".join(sample["tokens"]), places


def _spans(sample: Sample) -> list[tuple[int, int, str]]:
    """Return the mentions of a sample in characters of its text."""
    _, places = _text(sample)
    return [(places[first][0], places[last][1], kind) for kind, first, last in entities_of(sample["tags"])]


def _pair(sample: Sample) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return head and tail in characters of the text."""
    _, places = _text(sample)
    (first, last), (start, end) = sample["head"], sample["tail"]
    return (places[first][0], places[last - 1][1]), (places[start][0], places[end - 1][1])


def _result(sample: Sample) -> Result:
    """Return a sample as what predict writes."""
    text, _ = _text(sample)
    result = Result(
        text,
        sample["id"],
        None if sample["text"] is not None else tuple(sample["tokens"]),
        image=PostImage(name=sample["image"]),
    )
    if sample["tags"] is None:
        relation = Relation(sample["relation"], *_pair(sample), score=1.0, factors=())
        return replace(result, relations=(relation,))
    entities = tuple(
        Entity(kind, text[start:end], start, end, score=1.0) for start, end, kind in _spans(sample)
    )
    return replace(result, entities=entities)


def _common(sample: Sample) -> dict[str, Any]:
    return {"id": sample["id"], **({} if sample["image"] is None else {"image": sample["image"]})}


def _own(sample: Sample) -> dict[str, Any]:
    """Return a sample as an object of the project's own format."""
    more = {name: sample[name] for name in ("groups", "boxes") if sample[name] is not None}
    raw = sample["text"] is not None
    content: dict[str, Any] = {"text": sample["text"]} if raw else {"tokens": sample["tokens"]}
    if sample["tags"] is None:
        head, tail = _pair(sample) if raw else (sample["head"], sample["tail"])
        content |= {"head": head, "tail": tail, "relation": sample["relation"]}
    elif raw:
        spans = _spans(sample)
        content["spans"] = [{"start": start, "end": end, "type": kind} for start, end, kind in spans]
    else:
        content["tags"] = sample["tags"]
    return {**_common(sample), **content, **more}


def _doccano(sample: Sample) -> dict[str, Any]:
    text, _ = _text(sample)
    words = {} if sample["text"] is not None else {"tokens": sample["tokens"]}
    if sample["tags"] is not None:
        return {**_common(sample), "text": text, "label": _spans(sample), **words}
    ends = zip((1, 2), ("head", "tail"), _pair(sample), strict=True)
    return {
        **_common(sample),
        "text": text,
        "entities": [
            {"id": number, "label": name, "start_offset": start, "end_offset": end}
            for number, name, (start, end) in ends
        ],
        "relations": [{"id": 1, "from_id": 1, "to_id": 2, "type": sample["relation"]}],
        **words,
    }


def _opennre(sample: Sample) -> dict[str, Any]:
    raw = sample["text"] is not None
    text: dict[str, Any] = {"text": sample["text"]} if raw else {"token": sample["tokens"]}
    head, tail = _pair(sample) if raw else (sample["head"], sample["tail"])
    written, _ = _text(sample)
    places = zip(("h", "t"), (head, tail), _pair(sample), strict=True)
    ends = {key: {"name": written[slice(*there)], "pos": end} for key, end, there in places}
    return {**_common(sample), **text, **ends, "relation": sample["relation"]}


def _label_names(samples: Iterable[Sample]) -> list[str]:
    """Return all labels of a run in order, O first: the same numbers in every split."""
    labels = {label for one in samples for label in one["tags"] or [one["relation"]]}
    return sorted(labels, key=lambda label: (label != "O", label))


def _table(rows: list[dict[str, Any]], names: list[str]) -> pa.Table:
    """Return the rows as a dataset of Hugging Face, whose features name its numbers."""
    label = {"names": names, "_type": "ClassLabel"}
    number = {name: place for place, name in enumerate(names)}
    text = {"dtype": "string", "_type": "Value"}
    words = {"feature": text, "_type": "List"}
    columns: dict[str, Any] = {"id": pa.array([row["id"] for row in rows], pa.string())}
    columns["tokens"] = pa.array([row["tokens"] for row in rows], pa.list_(pa.string()))
    features: dict[str, Any] = {"id": text, "tokens": words}
    if rows[0]["tags"] is not None:
        tags = [[number[tag] for tag in row["tags"]] for row in rows]
        columns["ner_tags"] = pa.array(tags, pa.list_(pa.int64()))
        features["ner_tags"] = {"feature": label, "_type": "List"}
    else:
        for name in ("head", "tail"):
            columns[name] = pa.array([row[name] for row in rows], pa.list_(pa.int32()))
            features[name] = {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "List"}
        columns["relation"] = pa.array([number[row["relation"]] for row in rows], pa.int64())
        features["relation"] = label
    columns["image"] = pa.array([row["image"] for row in rows], pa.string())
    features["image"] = text
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table(columns).replace_schema_metadata(metadata)


_OBJECTS: dict[str, Callable[[Sample], dict[str, Any]]] = {
    "jsonl": _own,
    "doccano": _doccano,
    "opennre": _opennre,
}
# What predict's writers write, by the names that they have there.
_OF_RESULTS = {"twitter": "conll", "label-studio": "label-studio", "brat": "brat", "spacy": "spacy"}
_WORDS_ALONE = ("twitter", "spacy")
_TASK_OF = {"twitter": "ner", "spacy": "ner", "opennre": "re"}
_SUFFIXES = {
    "jsonl": ".jsonl",
    "twitter": ".txt",
    "doccano": ".jsonl",
    "label-studio": ".json",
    "brat": "",
    "huggingface": ".parquet",
    "spacy": ".spacy",
    "opennre": ".jsonl",
}
EXPORT_FORMATS = tuple(_SUFFIXES)
"""The formats that samples are written in, by the names of prepare's."""
