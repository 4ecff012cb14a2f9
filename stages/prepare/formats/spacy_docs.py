"""Files of spaCy's DocBin: the words of each document, and its entities. They need spaCy, the extra `spacy`.

The user data of a document may have an "id" and an "image", as `export` writes them. Sentences are not
parted, and relations are no part of these files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ....manifests.errors import InputError, in_one_line
from ....manifests.fingerprint import digest_file
from .annotated import translated
from .rows import Draft, Line, Reading, Refused

__all__ = ["DocFile", "read_spacy"]


@dataclass(frozen=True)
class DocFile:
    """The documents of one split. digest: the sha256 of the file's bytes."""

    path: Path
    digest: str
    docs: list[Any]

    @classmethod
    def read(cls, path: Path) -> "DocFile":
        """Return a file's documents. Raises InputError where it is none, or spaCy is not installed."""
        try:
            spacy, tokens = import_module("spacy"), import_module("spacy.tokens")
        except ImportError as error:
            raise InputError(
                f"{path} needs spaCy, which cannot be imported ({in_one_line(error)}); "
                "run `pip install 'hmnet-pipe[spacy]'`"
            ) from error
        if not path.is_file():
            raise InputError(f"{path} is not a file; name one that spaCy has written")
        try:
            docs = list(tokens.DocBin().from_disk(path).get_docs(spacy.blank("xx").vocab))
            digest = digest_file(path)
        except Exception as error:  # zlib's, msgpack's or spaCy's own, by what is wrong
            raise InputError(f"{path} is no DocBin of spaCy ({in_one_line(error)}); save it again") from error
        return cls(path, digest, docs)


def read_spacy(file: DocFile, task: str, reading: Reading) -> Iterator[Draft | Refused]:
    """Return the samples of one file, and the documents that are none."""
    rows = ((Line(file, number), doc) for number, doc in enumerate(file.docs, start=1))
    return translated(rows, _objects, task, reading)


def _objects(line: Line, doc: Any, task: str) -> Iterator[dict[str, Any] | str]:
    words = [token for token in doc if not token.is_space]
    place = {token.i: index for index, token in enumerate(words)}
    tags = ["O"] * len(words)
    for entity in doc.ents:
        inside = [place[token.i] for token in entity if token.i in place]
        for index in inside:
            tags[index] = f"{'B' if index == inside[0] else 'I'}-{entity.label_}"
    more = {name: doc.user_data[name] for name in ("id", "image") if doc.user_data.get(name) is not None}
    yield {**more, "tokens": [token.text for token in words], "tags": tags}
