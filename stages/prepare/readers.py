"""From a folder with one text file per split to rows of samples, whatever the format.

Bad input raises InputError with its remedy.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError
from ...manifests.schemas import SPLITS, TASKS
from ..base.tools import SILENT, Tools
from .columns import Columns, Samples, columns_of, joined
from .formats.registry import FORMATS
from .formats.rows import ProblemRow, Reading, SampleRow, Source
from .parts import PART_BYTES, Part, Whole, cut, over_parts

__all__ = [
    "FORMAT_NAMES",
    "SPLITS",
    "ProblemRow",
    "Reading",
    "SampleRow",
    "Samples",
    "Texts",
    "find_texts",
    "open_texts",
    "read_samples",
    "samples_of",
]

FORMAT_NAMES = ("auto", *FORMATS)

_SPLIT_OF = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
}
# The space is in the published MNRE itself: "mnre_val .txt". Its first version was published twice, as
# "mnre_org_val.txt" and, with all three splits, as "ours_val.txt". Of a file in several parts, as Hugging
# Face writes it, the first stands for all.
_SUFFIX_NAMES = {suffix for one in FORMATS.values() for suffix in one.suffixes}
_SUFFIXES = sorted(map(re.escape, _SUFFIX_NAMES))
_FILE_NAME = re.compile(
    rf"(?P<mnre>mnre_(?:org_)?|ours_)?(?P<split>{'|'.join(_SPLIT_OF)})(?:-00000-of-\d{{5}})? ?"
    rf"(?P<suffix>{'|'.join(_SUFFIXES)})"
)
_EXPECTED = {"auto": "train.txt, mnre_train.txt or train.jsonl"} | {
    name: one.expected for name, one in FORMATS.items()
}


@dataclass(frozen=True)
class Texts:
    """The text files of a folder: their format, never "auto", and the path of each split that is there."""

    format: str
    files: dict[str, Path]


def find_texts(folder: Path, task: str, format: str = "auto") -> Texts:
    """Find one file per split by name alone. `valid` and `test` may be missing, `train` may not.

    Raises InputError for a wrong folder, task or format, a missing training file and two files for one split.
    """
    if task not in TASKS:
        raise InputError(f"task {task!r} is unknown; expected one of {', '.join(TASKS)}")
    if format not in FORMAT_NAMES:
        raise InputError(f"format {format!r} is unknown; expected one of {', '.join(FORMAT_NAMES)}")
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that holds {_EXPECTED[format]}")
    try:
        names = sorted(_name_of(path) for path in folder.iterdir() if path.is_file() or _is_split(path))
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}); check its permissions") from error
    matches = [(name, match) for name in names if (match := _FILE_NAME.fullmatch(name))]
    possible = {name: _formats_of(match, task, format) for name, match in matches}
    # What the training file is decides for those that may be the same.
    leading = sorted(matches, key=lambda one: _SPLIT_OF[one[1]["split"]] != "train")
    chosen: dict[str, str] = {}
    for name, _ in leading:
        if kinds := possible[name]:
            again = next((kind for kind in chosen.values() if kind in kinds), None)
            chosen[name] = again or _chosen(folder / name, kinds)
    candidates = {name: (match, chosen[name]) for name, match in matches if name in chosen}
    kinds = sorted({kind for _, kind in candidates.values()})
    if len(kinds) > 1:
        raise InputError(
            f"{folder} holds files of the formats {' and '.join(kinds)}; "
            "say which format to read, or remove one"
        )
    files: dict[str, Path] = {}
    for name, (match, _) in candidates.items():
        split = _SPLIT_OF[match["split"]]
        if split in files:
            raise InputError(
                f"{folder} holds two files for the split {split}, "
                f"{files[split].name!r} and {name!r}; remove one"
            )
        files[split] = folder / name
    if "train" not in files:
        others = sorted(name for name, match in matches if _SPLIT_OF[match["split"]] == "train")
        there = (
            f"; {others[0]} is there, which --format {_formats_of(_match(others[0]), task, 'auto')[0]} reads"
            if others
            else _other_training_file(names)
        )
        raise InputError(f"{folder} holds no training file; add {_EXPECTED[format]}{there}")
    if (FORMATS[kinds[0]].task or task) != task:
        raise InputError(
            f"{folder} holds {kinds[0]} files, which are for the task {FORMATS[kinds[0]].task}, not {task}; "
            "change the task"
        )
    return Texts(kinds[0], {split: files[split] for split in SPLITS if split in files})


def _name_of(path: Path) -> str:
    """Return what _FILE_NAME matches: the name of a file, and of a folder with a slash."""
    return f"{path.name}/" if path.is_dir() else path.name


def _is_split(path: Path) -> bool:
    """Return whether a folder holds the texts of a split, and not images, say."""
    return path.name in _SPLIT_OF and any(
        one.looks is not None and one.looks(path) for one in FORMATS.values() if "/" in one.suffixes
    )


def _match(name: str) -> re.Match[str]:
    match = _FILE_NAME.fullmatch(name)
    assert match is not None
    return match


def _other_training_file(names: list[str]) -> str:
    """Return the end of the message that no file is a training file: one that may be meant, if any is."""
    if any(name.endswith(".ann") for name in names):
        return "; its .ann files are BRAT's: put those of the training and their texts into a folder train"
    near = [name for name in names if "train" in name.lower()]
    if not near and len(kinds := [name for name in names if Path(name).suffix in _SUFFIX_NAMES]) == 1:
        near = kinds  # as tools call their exports: "admin.jsonl", "project-1-at-2026-11-27.json"
    return f"; {near[0]} is there: is it a training file under another name?" if near else ""


def _formats_of(match: re.Match[str], task: str, format: str) -> list[str]:
    """Return the formats that a file may be of by its name, those for the task first; `format` or "auto"."""
    kinds = [
        name
        for name, one in FORMATS.items()
        if match["suffix"] in one.suffixes and (not match["mnre"] or name == "mnre")
    ]
    if format != "auto":
        return [format] if format in kinds else []
    return [name for name in kinds if FORMATS[name].task in (task, None)] or kinds


def _chosen(path: Path, kinds: list[str]) -> str:
    """Return the one of the formats that a file looks like, or the one that needs no look."""
    if len(kinds) == 1:
        return kinds[0]
    try:
        for kind in kinds:
            if (looks := FORMATS[kind].looks) is not None and looks(path):
                return kind
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    return next((kind for kind in kinds if FORMATS[kind].looks is None), kinds[0])


def read_samples(
    text: Path, task: str, format: str = "auto", reading: Reading | None = None
) -> tuple[list[SampleRow], list[ProblemRow]]:
    """Return every sample of the folder `text`, by (split, id), and a problem for each repair.

    Raises InputError: see `find_texts`; for a bad line it names the file and the line.
    """
    texts = find_texts(text, task, format)
    samples = samples_of(open_texts(texts), task, texts.format, reading)
    rows = [SampleRow(**row) for part in samples.groups(2**14) for row in part.to_pylist()]
    return rows, [ProblemRow(**row) for row in samples.repairs.to_pylist()]


def open_texts(texts: Texts, part_bytes: int = PART_BYTES) -> dict[str, Source]:
    """Return what each split is read from: whole, or a file in parts."""
    form = FORMATS[texts.format]
    return {
        split: cut(path, form.ends, part_bytes) if form.ends else form.open(path)
        for split, path in texts.files.items()
    }


def samples_of(
    files: Mapping[str, Source],
    task: str,
    format: str,
    reading: Reading | None = None,
    tools: Tools = SILENT,
) -> Samples:
    """Return the samples of what each split is read from, on all cores where that is much.

    Neither rows nor ids depend on the order of lines or on the parts; only a problem's `where`, which names
    the line, does. Raises InputError for a bad line, which names the file and the line, and StageError where
    a file has changed meanwhile.
    """
    form, reading = FORMATS[format], reading or Reading()
    splits = [split for split, file in files.items() for _ in _pieces(file)]
    pieces = [piece for file in files.values() for piece in _pieces(file)]
    read: dict[str, list[Columns]] = {split: [] for split in files}
    with over_parts(pieces, tools) as each:
        if form.marks is not None:
            found = each(partial(_marks, format=format, reading=reading), pieces)
            reading = form.settle(set().union(*found), reading)
        columns = each(partial(_columns, task=task, format=format, reading=reading), pieces)
        for split, part in zip(splits, columns, strict=True):
            read[split].append(part)
    for split, file in files.items():
        if isinstance(file, Whole):
            file.check()
        if not any(map(len, read[split])):
            refused = [row for part in read[split] for row in part.refused.slice(0, 1).to_pylist()][:1]
            raise InputError(
                f"{file.path} holds nothing that --format {format} can read"
                + "".join(f"; {row['where']}: {row['reason']}" for row in refused)
            )
    return joined(read, {split: file.path for split, file in files.items()}, task)


def _pieces(file: Source) -> Sequence[Part | Source]:
    return file.parts if isinstance(file, Whole) else [file]


def _marks(piece: Part | Source, format: str, reading: Reading) -> set[Any]:
    marks = FORMATS[format].marks
    assert marks is not None
    return marks(piece.read(), reading) if isinstance(piece, Part) else set()


def _columns(piece: Part | Source, task: str, format: str, reading: Reading) -> Columns:
    """Return the samples of a part of a file, or of what is read whole. Raises InputError for a bad line."""
    file = piece.read() if isinstance(piece, Part) else piece
    return columns_of(FORMATS[format].read(file, task, reading), {"ner": "tag", "re": "relation"}[task])
