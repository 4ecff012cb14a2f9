"""spaCy and stanza over words that are given: no tokenizer of theirs touches a text.

Both libraries are extras, and their models the user's. Each is imported when it is used.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError, WeightsError, in_one_line
from ...manifests.fingerprint import digest_file, digest_json
from .settings import SPACY, STANZA
from .trees import Tree

__all__ = ["Parser", "model_digest", "open_parser"]

_BATCH = 64


@dataclass(frozen=True)
class Parser:
    """A parser with its model. parse: yields the tree of each text, in order."""

    tool: str
    model: str
    version: str
    parse: Callable[[Sequence[Sequence[str]]], Iterator[Tree]]


def model_digest(parser: str, model: str) -> str:
    """Return a digest of all files of a model.

    Raises WeightsError where there is none.
    """
    folder = _place(parser, model)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    if not files:
        raise WeightsError(f"{folder} holds no model of {parser}; give --model the folder of one")
    return digest_json([[path.relative_to(folder).as_posix(), digest_file(path)] for path in files])


def open_parser(parser: str, model: str) -> Parser:
    """Return the parser with its model. Raises WeightsError where the model cannot be opened."""
    folder = _place(parser, model)
    library = _library(parser)
    try:
        return {SPACY: _spacy, STANZA: _stanza}[parser](library, folder)
    except (InputError, WeightsError):
        raise
    except Exception as error:  # a model of another version breaks its library in any way
        raise WeightsError(
            f"{folder} cannot be opened as a model of {parser} {library.__version__} ({in_one_line(error)}); "
            "give --model one that was made for it"
        ) from error


def _library(parser: str) -> Any:
    try:
        return import_module(parser)
    except ImportError as error:
        raise InputError(
            f"{parser} cannot be imported ({in_one_line(error)}); run `pip install 'hmnet-pipe[{parser}]'`, "
            "or bring trees with --parser conllu"
        ) from error


def _place(parser: str, model: str) -> Path:
    """Return the folder of a model: the one that is named, or that of a package of spaCy."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if parser == SPACY and model.isidentifier():
        spacy = _library(parser)
        if spacy.util.is_package(model):
            package: Path = spacy.util.get_package_path(model)
            return package
    raise WeightsError(
        f"{model} is no folder{' and no installed package' if parser == SPACY else ''}; download the model "
        f"of {parser} and give --model its folder"
    )


def _spacy(spacy: Any, folder: Path) -> Parser:
    # A package's own folder holds its code; the model lies in a folder of it, which spacy.load finds.
    is_package = (folder / "__init__.py").is_file()
    nlp = spacy.load(folder.name if is_package else folder)
    meta: Mapping[str, Any] = nlp.meta
    doc_of: Any = import_module("spacy.tokens").Doc

    def parse(texts: Sequence[Sequence[str]]) -> Iterator[Tree]:
        for doc in nlp.pipe((doc_of(nlp.vocab, words=list(words)) for words in texts), batch_size=_BATCH):
            if not doc.has_annotation("DEP"):
                raise InputError(
                    f"the pipeline {folder} of spaCy ({', '.join(nlp.pipe_names) or 'empty'}) has no parser; "
                    "give --model one with a parser"
                )
            heads = tuple(-1 if token.head.i == token.i else token.head.i for token in doc)
            yield Tree(heads, tuple(token.dep_ for token in doc))

    name = f"{meta.get('lang', '')}_{meta.get('name', '')} {meta.get('version', '')}"
    return Parser(SPACY, name, spacy.__version__, parse)


def _stanza(stanza: Any, folder: Path) -> Parser:
    pipeline = stanza.Pipeline(
        folder.name,
        dir=str(folder.parent),
        processors="tokenize,pos,lemma,depparse",
        tokenize_pretokenized=True,
        download_method=None,
        verbose=False,
    )

    def parse(texts: Sequence[Sequence[str]]) -> Iterator[Tree]:
        for first in range(0, len(texts), _BATCH):
            for sentence in pipeline([list(words) for words in texts[first : first + _BATCH]]).sentences:
                words = sentence.words
                yield Tree(tuple(word.head - 1 for word in words), tuple(word.deprel for word in words))

    return Parser(STANZA, folder.name, stanza.__version__, parse)
