"""Dependency trees in CoNLL-U: sentences by the sample that they are of, over that sample's own words.

`# sample_id = ID`, or `# sent_id = ID` where there is none, says which sample a sentence is of. Sentences of
one sample follow each other. Empty nodes (8.1) are skipped.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...manifests.errors import InputError
from ...manifests.files import reason_of
from .trees import Tree, fault_of

__all__ = ["read_conllu"]

_COLUMNS = 10


@dataclass
class _Sentence:
    """One sentence. line: of its first word. heads: by the words' numbers from 1, 0 for a root."""

    line: int
    sample: str | None
    words: list[str] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    relations: list[str] = field(default_factory=list)


def read_conllu(path: Path, samples: Mapping[str, Sequence[str]]) -> dict[str, Tree]:
    """Return the trees of the samples in a file; sentences of other texts are left out.

    samples: the words of each sample by its id. Raises InputError, which names the line, for a sentence of
    other words or of another number of words, a range of words (8-9), a cycle, and a line of another form.
    """
    trees: dict[str, Tree] = {}
    found: dict[str, list[_Sentence]] = {}
    last = None
    for sentence in _sentences(path):
        if sentence.sample is None:
            raise InputError(
                f"{path}:{sentence.line}: the sentence does not say which sample it is of; write "
                "`# sample_id = ID` above it, with an id of samples.parquet"
            )
        if sentence.sample in found and sentence.sample != last:
            raise InputError(
                f"{path}:{sentence.line}: sample {sentence.sample!r} has a tree further up; write its "
                "sentences one after the other"
            )
        last = sentence.sample
        if sentence.sample in samples:
            found.setdefault(sentence.sample, []).append(sentence)
    for sample, sentences in found.items():
        trees[sample] = _joined(path, sample, samples[sample], sentences)
    return trees


def _joined(path: Path, sample: str, words: Sequence[str], sentences: list[_Sentence]) -> Tree:
    """Return the tree of a sample from those of its sentences."""
    heads: list[int] = []
    relations: list[str] = []
    for sentence in sentences:
        first = len(heads)
        own = [head - 1 for head in sentence.heads]
        if (fault := fault_of(own)) is not None:
            raise InputError(f"{path}:{sentence.line}: the sentence of sample {sample!r} is no tree: {fault}")
        heads += [head if head < 0 else first + head for head in own]
        relations += sentence.relations
    given = [word for sentence in sentences for word in sentence.words]
    where = f"{path}:{sentences[0].line}"
    if len(given) != len(words):
        raise InputError(
            f"{where}: sample {sample!r} has {len(words)} words, and its tree {len(given)}; parse the words "
            "as they are, without a tokenizer"
        )
    for number, (one, other) in enumerate(zip(given, words, strict=True), start=1):
        if one != other:
            raise InputError(
                f"{where}: word {number} of sample {sample!r} is {other!r}, and in its tree {one!r}; parse "
                "the words as they are"
            )
    return Tree(tuple(heads), tuple(relations))


def _sentences(path: Path) -> Iterator[_Sentence]:
    """Yield the sentences of a file."""
    sample: str | None = None
    named = False  # by sample_id, which counts before sent_id
    sentence: _Sentence | None = None
    for number, line in _lines(path):
        if not line.strip():
            if sentence is not None:
                yield sentence
            sentence, sample, named = None, None, False
        elif line.startswith("#"):
            name, equals, value = line[1:].partition("=")
            if equals and (name.strip() == "sample_id" or (name.strip() == "sent_id" and not named)):
                sample, named = value.strip(), name.strip() == "sample_id"
        else:
            if sentence is None:
                sentence = _Sentence(number, sample)
            _add(sentence, path, number, line)
    if sentence is not None:
        yield sentence


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({reason_of(error)}); give --model a file in CoNLL-U, in UTF-8"
        ) from error


def _add(sentence: _Sentence, path: Path, number: int, line: str) -> None:
    """Add the word of a line to its sentence."""
    columns = line.split("\t")
    if len(columns) != _COLUMNS:
        raise InputError(
            f"{path}:{number}: a word has {_COLUMNS} columns with tabs between them, not {len(columns)}"
        )
    place, word, head, relation = columns[0], columns[1], columns[6], columns[7]
    if "." in place:  # an empty node of the enhanced graph
        return
    if "-" in place:
        raise InputError(
            f"{path}:{number}: {place} ({word}) is one word of the text and several of the tree; parse "
            "the words as they are, so that each is one node"
        )
    if place != str(len(sentence.words) + 1):
        raise InputError(f"{path}:{number}: word {len(sentence.words) + 1} is expected, not {place!r}")
    if not (head.isascii() and head.isdigit() and len(head) < 10):
        raise InputError(f"{path}:{number}: the head of {word!r} must be a number, not {head!r}")
    sentence.words.append(word)
    sentence.heads.append(int(head))
    sentence.relations.append(relation)
