"""The text formats that can be read: what each is called by, looks like, and is read with."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .brat import BratFolder, is_brat, read_brat
from .doccano import is_doccano, read_doccano
from .huggingface import Dataset, files_of, is_dataset, read_huggingface
from .jsonl import read_jsonl
from .label_studio import is_label_studio, read_label_studio
from .mnre import read_mnre
from .opennre import is_opennre, read_opennre
from .rows import Draft, Reading, Refused, TextFile
from .spacy_docs import DocFile, read_spacy
from .twitter import marks_of, read_twitter, settle_columns

__all__ = ["FORMATS", "Format"]


@dataclass(frozen=True)
class Format:
    """One text format.

    read: from one split, the task and the reading to its samples, and to the rows that are none. expected:
    the names of a training file, for messages. suffixes: of the files that may be of this format; "/" is a
    folder. task: the one task that it is for; None: both. open: reads a split whole. ends: what a part of a
    file may end in; none: it is only read whole. marks, settle: what a part says of the reading, and the
    reading that follows from the marks of all parts of all splits. raw: whether the texts may be raw, so that
    the rule for words matters. looks: whether a file is of this format where its name allows others too;
    None: where it is of no other. files: all files that a split is read from.
    """

    read: Callable[[Any, str, Reading], Iterable[Draft | Refused]]
    expected: str
    suffixes: tuple[str, ...]
    task: str | None = None
    open: Callable[[Path], Any] = TextFile.read
    ends: tuple[bytes, ...] = ()
    marks: Callable[[TextFile, Reading], set[Any]] | None = None
    settle: Callable[[set[Any], Reading], Reading] = lambda marks, reading: reading
    raw: bool = True
    looks: Callable[[Path], bool] | None = None
    files: Callable[[Path], list[Path]] = lambda path: [path]


_JSON = (".jsonl", ".json")
_LINES = (b"\n",)

FORMATS: dict[str, Format] = {
    "twitter": Format(
        lambda file, task, reading: read_twitter(file, reading),
        "train.txt",
        (".txt", ".conll"),
        task="ner",
        ends=(b"\n\n", b"\n\r\n"),
        marks=marks_of,
        settle=settle_columns,
        raw=False,
    ),
    "mnre": Format(
        lambda file, task, reading: read_mnre(file),
        "mnre_train.txt or train.txt",
        (".txt",),
        task="re",
        ends=_LINES,
        raw=False,
    ),
    "jsonl": Format(read_jsonl, "train.jsonl", _JSON, ends=_LINES),
    "doccano": Format(read_doccano, "train.jsonl", _JSON, ends=_LINES, looks=is_doccano),
    "label-studio": Format(read_label_studio, "train.json", _JSON, looks=is_label_studio),
    "brat": Format(
        read_brat, "a folder train of .txt and .ann files", ("/",), open=BratFolder.read, looks=is_brat
    ),
    "huggingface": Format(
        read_huggingface,
        "train.parquet or a folder train of save_to_disk",
        (".parquet", "/"),
        open=Dataset.read,
        looks=is_dataset,
        files=files_of,
    ),
    "spacy": Format(read_spacy, "train.spacy", (".spacy",), task="ner", open=DocFile.read, raw=False),
    "opennre": Format(
        read_opennre, "train.jsonl or train.txt", (".txt", *_JSON), task="re", ends=_LINES, looks=is_opennre
    ),
}
