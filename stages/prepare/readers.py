"""From a folder with one text file per split to rows of samples, whatever the format.

Bad input raises InputError with its remedy.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...manifests.errors import InputError
from ...manifests.schemas import SPLITS, TASKS
from .formats.jsonl import read_jsonl
from .formats.mnre import read_mnre
from .formats.rows import Draft, Line, ProblemRow, Reading, SampleRow, TextFile, number_repeats
from .formats.twitter import has_twitter_labels, read_twitter

__all__ = [
    "FORMATS",
    "SPLITS",
    "ProblemRow",
    "Reading",
    "SampleRow",
    "Texts",
    "find_texts",
    "read_samples",
    "samples_of",
]

FORMATS = ("auto", "twitter", "mnre", "jsonl")

_SPLIT_OF = {"train": "train", "valid": "valid", "val": "valid", "dev": "valid", "test": "test"}
# The space is in the published MNRE itself: "mnre_val .txt". Its first version was published twice, as
# "mnre_org_val.txt" and, with all three splits, as "ours_val.txt".
_FILE_NAME = re.compile(
    rf"(?P<mnre>mnre_(?:org_)?|ours_)?(?P<split>{'|'.join(_SPLIT_OF)}) ?\.(?P<suffix>txt|jsonl?)"
)
_TASK_OF = {"twitter": "ner", "mnre": "re"}
_EXPECTED = {
    "auto": "train.txt, mnre_train.txt or train.jsonl",
    "twitter": "train.txt",
    "mnre": "mnre_train.txt or train.txt",
    "jsonl": "train.jsonl",
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
    if format not in FORMATS:
        raise InputError(f"format {format!r} is unknown; expected one of {', '.join(FORMATS)}")
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that holds {_EXPECTED[format]}")
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}); check its permissions") from error
    matches = [(name, match) for name in names if (match := _FILE_NAME.fullmatch(name))]
    candidates = {
        name: (match, kind)
        for name, match in matches
        if (kind := _format_of(match, task, format)) is not None
    }
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
            f"; {others[0]} is there, which --format {_format_of(_match(others[0]), task, 'auto')} reads"
            if others
            else _other_training_file(names)
        )
        raise InputError(f"{folder} holds no training file; add {_EXPECTED[format]}{there}")
    if _TASK_OF.get(kinds[0], task) != task:
        raise InputError(
            f"{folder} holds {kinds[0]} files, which are for the task {_TASK_OF[kinds[0]]}, not {task}; "
            "change the task"
        )
    return Texts(kinds[0], {split: files[split] for split in SPLITS if split in files})


def _match(name: str) -> re.Match[str]:
    match = _FILE_NAME.fullmatch(name)
    assert match is not None
    return match


def _other_training_file(names: list[str]) -> str:
    """Return the end of the message that no file is a training file: one that may be meant, if any is."""
    near = [name for name in names if "train" in name.lower()]
    return f"; {near[0]} is there: is it a training file under another name?" if near else ""


def _format_of(match: re.Match[str], task: str, format: str) -> str | None:
    """Return the format that a file's name indicates, or None where it is not the wanted `format`."""
    if match["suffix"] in ("json", "jsonl"):
        kind = None if match["mnre"] else "jsonl"
    elif match["mnre"]:
        kind = "mnre"
    else:  # a plain .txt may be either of two formats
        kind = format if format in _TASK_OF else {"ner": "twitter", "re": "mnre"}[task]
    return kind if format in ("auto", kind) else None


def read_samples(
    text: Path, task: str, format: str = "auto", reading: Reading | None = None
) -> tuple[list[SampleRow], list[ProblemRow]]:
    """Return every sample of the folder `text`, by (split, id), and a problem for each repair.

    Raises InputError: see `find_texts`; for a bad line it names the file and the line.
    """
    texts = find_texts(text, task, format)
    files = {split: TextFile.read(path) for split, path in texts.files.items()}
    return samples_of(files, task, texts.format, reading)


def samples_of(
    files: Mapping[str, TextFile], task: str, format: str, reading: Reading | None = None
) -> tuple[list[SampleRow], list[ProblemRow]]:
    """Return what `read_samples` returns, from text files that were already read, by split.

    Neither rows nor ids depend on the order of lines; only a problem's `where`, which names the line, does.
    Raises InputError for a bad line, which names the file and the line.
    """
    reading = reading or Reading()
    if format == "twitter" and reading.labels == "auto":
        known = has_twitter_labels(files.values(), reading.column)
        reading = replace(reading, labels="twitter" if known else "written")
    read: dict[str, Callable[[TextFile], list[Draft]]] = {
        "twitter": lambda file: read_twitter(file, reading),
        "mnre": read_mnre,
        "jsonl": lambda file: read_jsonl(file, task, reading),
    }
    drafts = {split: read[format](file) for split, file in files.items()}
    rows = sorted(_named(drafts), key=lambda row: (row[0], row[1]))
    samples = [
        SampleRow(
            id=name,
            split=split,
            task=task,
            tokens=draft.tokens,
            tags=draft.tags,
            head=draft.head,
            tail=draft.tail,
            relation=draft.relation,
            groups=draft.groups,
            image=draft.image,
            text=draft.text,
            offsets=draft.offsets,
        )
        for split, name, draft in rows
    ]
    label = {"ner": "tag", "re": "relation"}[task]
    problems = [
        ProblemRow(kind, name, line.where, reason)
        for _, name, draft in rows
        for kind, found in ((label, draft.repairs), ("span", draft.moved), ("scheme", _scheme(draft)))
        for line, reason in found
    ]
    return samples, problems


def _scheme(draft: Draft) -> list[tuple[Line, str]]:
    return [(draft.line, "tags of BIOES or BILOU, read as BIO")] if draft.converted else []


def _named(drafts: dict[str, list[Draft]]) -> list[tuple[str, str, Draft]]:
    """Return (split, id, draft) for every draft.

    Raises InputError where an id is used twice: derived ids must be unique in a split, ids from a file
    anywhere.
    """
    rows: list[tuple[str, str, Draft]] = []
    for split, members in drafts.items():
        derived = [draft for draft in members if not draft.given]
        names = number_repeats([draft.name for draft in derived], [draft.digest for draft in derived])
        rows += [(split, name, draft) for name, draft in zip(names, derived, strict=True)]
        rows += [(split, draft.name, draft) for draft in members if draft.given]
    taken: dict[tuple[str, str], Draft] = {}
    for split, name, draft in rows:
        for scope in (split, "") if draft.given else (split,):
            if other := taken.get((scope, name)):
                raise draft.line.error(
                    f"id {name!r} is already used by {other.line}; every id must be unique, change one"
                )
            taken[scope, name] = draft
    return rows
