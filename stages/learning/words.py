"""What a training on words starts from: the vocabulary of its texts, and the vectors of a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError
from ...manifests.fingerprint import digest_file
from ..base.tools import Tools, counted
from ..systems.registry import system_info
from ..text.vectors import Vectors, read_vectors, spellings
from ..text.vocabulary import Vocabulary, Words
from .recipe import TrainingJob, TrainSettings

__all__ = ["LEARNED", "new_words", "vectors_digest", "word_dim", "word_options"]

LEARNED = "learned vectors"
"""What tables call a system whose words start from no file, after its name."""


def vectors_digest(recipe: TrainSettings) -> dict[str, str]:
    """Return the digest of the file of vectors that a training on words starts from, if there is one.

    Raises InputError where it is not there.
    """
    path = _file(recipe)
    if path is None:
        return {}
    if not path.is_file():
        raise InputError(f"--vectors: {path} is not a file; give one in GloVe's text format")
    return {"vectors": digest_file(path)}


def new_words(
    job: TrainingJob,
    train: Sequence[Sequence[str]],
    others: Sequence[Sequence[str]],
    options: Mapping[str, Any],
    tools: Tools,
) -> tuple[Words, Vectors | None]:
    """Return what reads the words of a new model, and their vectors; None: they are learned.

    train, others: the texts of the training split and of all others, as words. options: of the new model,
    which may name labels of objects. Raises InputError where the vectors cannot be read, or have other
    dimensions than run.toml says.
    """
    path = _file(job.recipe)
    if path is None:
        return Words(Vocabulary.of(train)), None
    labels = [label.split() for label in options.get("object_labels", ())]
    words = {word for text in (*train, *others, *labels) for word in text}
    vectors = read_vectors(path, {each for word in words for each in spellings(word)})
    if job.recipe.word_dim not in (0, vectors.dimensions):
        raise InputError(
            f"{job.config} says word_dim = {job.recipe.word_dim} in [train], and the vectors in {path} have "
            f"{vectors.dimensions} numbers; set it to 0, which takes the file's, or name another file"
        )
    found = sum(vectors.spelling(word) is not None for word in words)
    tools.say(f"{path.name}: {found} of {counted(len(words), 'words')} have a vector there")
    return Words(Vocabulary.of(train, others, vectors)), vectors


def word_options(job: TrainingJob, vectors: Vectors | None) -> dict[str, Any]:
    """Return what the options of a new model say of its vectors."""
    path = _file(job.recipe)
    if path is None or vectors is None:
        return {"vectors": None, "qualifiers": [LEARNED]}
    return {"vectors": {"file": path.name, "digest": digest_file(path)}, "qualifiers": [path.name]}


def word_dim(job: TrainingJob, vectors: Vectors | None) -> int:
    """Return how many features a word of a new model has."""
    if vectors is not None:
        return vectors.dimensions
    return job.recipe.word_dim or system_info(job.trial.system).word_dim


def _file(recipe: TrainSettings) -> Path | None:
    return Path(recipe.vectors).expanduser() if recipe.vectors else None
