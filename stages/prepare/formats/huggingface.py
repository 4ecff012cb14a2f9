"""Datasets of Hugging Face: parquet files, or folders as `save_to_disk` writes them.

Entities are columns `tokens` and `ner_tags` (or `tags`), whose numbers the features name, or `text` and
`spans`. Relations are `tokens` or `text` with `head`, `tail` and `relation`. `image` is a name, or an image
whose bytes `--images FILES.parquet` copies.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ....manifests.errors import InputError, in_one_line
from ....manifests.files import read_text
from ....manifests.fingerprint import digest_file, digest_json
from ...text.written import shorten
from ...vision.copies import embedded_name
from .annotated import translated
from .rows import Draft, Line, Reading, Refused

__all__ = ["Dataset", "files_of", "is_dataset", "read_huggingface"]

# The names that columns go by here, and their names elsewhere, in the order of preference.
_COLUMNS = {
    "tokens": ("tokens", "words"),
    "text": ("text", "sentence"),
    "tags": ("ner_tags", "tags", "ner", "labels"),
    "spans": ("spans", "entities"),
    "head": ("head",),
    "tail": ("tail",),
    "relation": ("relation", "label"),
    "id": ("id",),
    "image": ("image", "image_id", "img_id"),
}
_NEEDED = {"ner": ("tags", "spans"), "re": ("relation",)}
_PART = re.compile(r"-(\d{5})-of-(\d{5})$")
_FEW = 100  # rows at a time, as they may hold the bytes of images


@dataclass(frozen=True)
class Dataset:
    """One split: its files in order, the columns that it has, by their names here, and the names of labels.

    digest: over the bytes of all files.
    """

    path: Path
    digest: str
    files: list[Path]
    columns: dict[str, str]
    labels: dict[str, list[str]]

    @classmethod
    def read(cls, path: Path) -> "Dataset":
        """Return what a split is read from. Raises InputError where a file is missing or is none of these."""
        files = files_of(path)
        if missing := [file.name for file in files if not file.is_file()]:
            raise InputError(f"{path} lacks its file {missing[0]}; save it again")
        try:
            schemas = [_schema(file) for file in files]
            digest = digest_json([digest_file(file) for file in files])
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{path} cannot be read as a dataset ({in_one_line(error)}); save it again"
            ) from error
        columns = {
            ours: there
            for ours, names in _COLUMNS.items()
            if (there := next((name for name in names if name in schemas[0].names), None))
        }
        labels = _labels(schemas[0], columns)
        for file, schema in zip(files, schemas, strict=True):
            if lacking := [there for there in columns.values() if there not in schema.names]:
                raise InputError(
                    f"{file} has no column {lacking[0]!r}, which {files[0].name} has; save both again"
                )
            if _labels(schema, columns) != labels:
                raise InputError(
                    f"{file} names other labels than {files[0].name}; cast both to one ClassLabel and save "
                    "them again"
                )
        return cls(path, digest, files, columns, labels)

    def rows(self) -> Iterator[tuple[Line, dict[str, Any]]]:
        """Yield each row by the columns' names here, with its number, counted from 1.

        Raises InputError where a file breaks off.
        """
        number = 0
        for file in self.files:
            try:
                for batch in _batches(file, [*self.columns.values()]):
                    for row in batch.to_pylist():
                        number += 1
                        yield Line(self, number), {ours: row[there] for ours, there in self.columns.items()}
            except (OSError, pa.ArrowException) as error:
                raise InputError(f"{file} cannot be read ({in_one_line(error)}); save it again") from error


def is_dataset(path: Path) -> bool:
    """Return whether a folder is a split that `save_to_disk` has written."""
    return (path / "state.json").is_file() and (path / "dataset_info.json").is_file()


def read_huggingface(dataset: Dataset, task: str, reading: Reading) -> Iterator[Draft | Refused]:
    """Return the samples of a split, and the rows that are none.

    Raises InputError where it has no column of labels, or one of numbers that nothing names.
    """
    there = [ours for ours in _NEEDED[task] if ours in dataset.columns]
    if not there or not {"tokens", "text"} & dataset.columns.keys():
        wanted = " or ".join(repr(name) for ours in _NEEDED[task] for name in _COLUMNS[ours][:1])
        raise InputError(
            f"{dataset.path} has no columns 'tokens' or 'text', and {wanted}, for the task {task}; "
            "rename its own before it is saved"
        )

    def objects(line: Line, row: dict[str, Any], task: str) -> Iterator[dict[str, Any] | str]:
        yield _object(line, row, task, dataset)

    return translated(dataset.rows(), objects, task, reading)


def _object(line: Line, row: dict[str, Any], task: str, dataset: Dataset) -> dict[str, Any]:
    """Return a row as an object of the project's own."""
    kept = {name: row[name] for name in ("id", "image") if row.get(name) is not None}
    if isinstance(kept.get("image"), dict):
        kept["image"] = embedded_name(kept["image"])
    if task == "re":
        relation = _named(line, "relation", row["relation"], dataset)
        text = {name: row[name] for name in ("tokens", "text") if row.get(name) is not None}
        if "tokens" in text:
            text.pop("text", None)
        return {**kept, **text, "head": row.get("head"), "tail": row.get("tail"), "relation": relation}
    if row.get("tokens") is not None and "tags" in row:
        tags = line.fail("tags", "a list", row["tags"]) if not isinstance(row["tags"], list) else row["tags"]
        named = [_named(line, "tags", tag, dataset) for tag in tags]
        return {**kept, "tokens": row["tokens"], "tags": named}
    spans = row.get("spans")
    if not isinstance(spans, list) or not all(isinstance(one, dict) for one in spans):
        line.fail("spans", "a list of objects", spans)
    found = [
        {
            "start": one.get("start"),
            "end": one.get("end"),
            "type": one.get("type") or one.get("label") or one.get("entity_group"),
        }
        for one in spans
    ]
    return {**kept, "text": row.get("text"), "spans": found}


def _named(line: Line, name: str, value: Any, dataset: Dataset) -> Any:
    """Return the name of a label, which may be a number. Raises InputError where it has none."""
    if type(value) is not int:
        return value
    column = dataset.columns[name]
    names = dataset.labels.get(column)
    if names is None:
        raise line.error(
            f"{shorten(column)} has numbers, and the dataset does not say their names; cast the column to "
            "ClassLabel before it is saved"
        )
    if not 0 <= value < len(names):
        raise line.error(f"{shorten(column)} has {value}, and the names of {len(names)} labels")
    return names[value]


def files_of(path: Path) -> list[Path]:
    """Return the files of a split: of a folder those that it lists, and all parts of which one is named."""
    if path.is_dir():
        try:
            listed = json.loads(read_text(path / "state.json"))["_data_files"]
            return [path / Path(one["filename"]).name for one in listed]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path / 'state.json'} names no files ({in_one_line(error)}); save it again"
            ) from error
    if match := _PART.search(path.stem):
        stem = path.stem.removesuffix(match[0])
        count = int(match[2])
        files = [path.with_name(f"{stem}-{number:05}-of-{count:05}{path.suffix}") for number in range(count)]
        if missing := [file.name for file in files if not file.is_file()]:
            raise InputError(f"{path} is one of {count} files, and {missing[0]} is missing; add it")
        return files
    return [path]


def _schema(file: Path) -> pa.Schema:
    if file.suffix == ".parquet":
        return pq.read_schema(file)
    with pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as stream:
        return stream.schema


def _batches(file: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    if file.suffix == ".parquet":
        with pq.ParquetFile(file) as opened:
            yield from opened.iter_batches(batch_size=_FEW, columns=columns)
        return
    with pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as stream:
        for batch in stream:
            yield batch.select(columns)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Return what the features of a dataset say, by column; empty where nothing can be read."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _labels(schema: pa.Schema, columns: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names of the labels of those columns that have some."""
    features = _features(schema)
    return {column: names for column in columns.values() if (names := _names(features.get(column)))}


def _names(feature: Any) -> list[str] | None:
    """Return the names of a ClassLabel, or of the one in a sequence."""
    while isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
        feature = feature["feature"]
    names = feature.get("names") if isinstance(feature, dict) else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None
