"""The words and characters that an encoder without pretraining knows: those of the training split."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...manifests.errors import WeightsError
from ...manifests.files import read_text, reason_of, write_text
from ...manifests.fingerprint import digest_json
from .limits import EncodedText, Span
from .reader import TextReader
from .vectors import Vectors, spellings

__all__ = ["PAD", "UNKNOWN", "VOCABULARY_FILE", "Vocabulary", "Words"]

VOCABULARY_FILE = "vocabulary.json"
"""In the folder of a model on words: its words and characters."""

PAD, UNKNOWN = 0, 1
"""The ids of padding, and of every word or character that is not in the vocabulary."""

_FIRST = 2  # id of a vocabulary
_MOST = 2**22  # words or characters: more than any data set has
_LONGEST_WORD = 45  # characters that are read of a word, as in NeuroNLP2


@dataclass(frozen=True)
class Vocabulary:
    """Words and characters by falling count; those of one count are in the order of their code points.

    words: how often the training split holds each word; 0 for one that is known by its vector alone.
    characters: those that the training split holds at least twice, so that the others teach what an unknown
    one is.
    """

    words: Mapping[str, int]
    characters: tuple[str, ...]

    @classmethod
    def of(
        cls,
        train: Sequence[Sequence[str]],
        others: Iterable[Sequence[str]] = (),
        vectors: Vectors | None = None,
    ) -> "Vocabulary":
        """Return the vocabulary of the texts `train`, each a list of words.

        With vectors, it also has the words of the texts `others` that have one, in the spelling that has it.
        """
        words = Counter(word for text in train for word in text)
        letters = Counter(letter for word, count in words.items() for letter in word * count)
        counts = dict(_by_count(words))
        if vectors is not None:
            known = {*words, *vectors.rows}
            found = {
                next((each for each in spellings(word) if each in known), "")
                for text in others
                for word in text
            }
            counts.update((word, 0) for word in sorted(found - {""} - counts.keys()))
        return cls(counts, tuple(letter for letter, count in _by_count(letters) if count > 1))

    @property
    def word_ids(self) -> int:
        """Return how many ids of words there are, with PAD and UNKNOWN."""
        return _FIRST + len(self.words)

    @property
    def character_ids(self) -> int:
        """Return how many ids of characters there are, with PAD and UNKNOWN."""
        return _FIRST + len(self.characters)

    @cached_property
    def digest(self) -> str:
        """Return the digest of the vocabulary, which a model that was trained with it records."""
        return digest_json(self._values)

    @property
    def _values(self) -> dict[str, Any]:
        # As lists: JSON sorts the keys of a digest, and the order is the ids'.
        return {
            "words": list(self.words),
            "counts": list(self.words.values()),
            "characters": list(self.characters),
        }

    def save(self, folder: Path) -> None:
        """Write the vocabulary into a model's folder."""
        write_text(folder / VOCABULARY_FILE, json.dumps(self._values) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Vocabulary":
        """Return the vocabulary that `save` wrote. Raises WeightsError where it is not there, or damaged."""
        path = folder / VOCABULARY_FILE
        try:
            values = json.loads(read_text(path))
            words, counts, characters = (_list_of(values, name) for name in ("words", "counts", "characters"))
            _check_texts(words, "words")
            _check_texts(characters, "characters", longest=1)
            if len(counts) != len(words) or not all(type(each) is int and each >= 0 for each in counts):
                raise ValueError("its counts are not one whole number a word")
        except FileNotFoundError as error:
            raise WeightsError(
                f"{folder} holds no {VOCABULARY_FILE}, and its model reads words; train the model again"
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise WeightsError(f"{path} is damaged ({reason_of(error)}); train the model again") from error
        return cls(dict(zip(words, counts, strict=True)), tuple(characters))


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _list_of(values: Any, name: str) -> list[Any]:
    """Return a list of the file. Raises ValueError where there is none, or an endless one."""
    found = values.get(name) if isinstance(values, dict) else None
    if not isinstance(found, list) or len(found) > _MOST:
        raise ValueError(f"its {name} are not a list of at most {_MOST}")
    return found


def _check_texts(texts: Sequence[Any], name: str, longest: int | None = None) -> None:
    """Raise ValueError where anything is no text, repeated, or longer than `longest`."""
    for text in texts:
        if not isinstance(text, str) or (longest is not None and len(text) != longest):
            raise ValueError(f"{text!r} is not one of {name}"[:200])
    if len({*texts}) < len(texts):
        raise ValueError(f"its {name} repeat")


class Words(TextReader):
    """Reads texts as the ids of words and of their characters.

    A word is looked up as it is, then in lower case, then with its digits as 0.
    """

    pad_id, unknown_id = PAD, UNKNOWN

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._words = {word: number for number, word in enumerate(vocabulary.words, _FIRST)}
        self._characters = {letter: number for number, letter in enumerate(vocabulary.characters, _FIRST)}
        self._known: dict[str, tuple[int, list[int]]] = {}  # what `_ids` has returned

    @classmethod
    def of_model(cls, folder: Path) -> "Words":
        """Return the reader that `save` wrote. Raises WeightsError where there is none."""
        return cls(Vocabulary.load(folder))

    def save(self, folder: Path) -> None:
        self.vocabulary.save(folder)

    def word_id(self, word: str) -> int:
        """Return the id of a word, UNKNOWN for one that the vocabulary lacks in every spelling."""
        return next((self._words[each] for each in spellings(word) if each in self._words), UNKNOWN)

    def encode(
        self,
        texts: Sequence[Sequence[str]],
        pairs: Sequence[tuple[Span, Span]] | None = None,
        *,
        limit: int,
    ) -> list[EncodedText]:
        """Return texts as the ids of their first `limit` words; stages.text.limits has the rule.

        Of relations the words farthest from both arguments are dropped, never the first word of one.
        """
        if pairs is None:
            return [self._encoded(text[:limit]) for text in texts]
        return [
            self._encoded_pair(text, head, tail, limit)
            for text, (head, tail) in zip(texts, pairs, strict=True)
        ]

    def _encoded(self, words: Sequence[str], spans: tuple[Span, Span] | None = None) -> EncodedText:
        ids = [self._ids(word) for word in words]
        return EncodedText(
            [number for number, _ in ids],
            list(range(len(ids))),
            len(ids),
            [letters for _, letters in ids],
            spans,
        )

    def _encoded_pair(self, words: Sequence[str], head: Span, tail: Span, limit: int) -> EncodedText:
        if len(words) <= limit:
            return self._encoded(words, (head, tail))

        def loss(word: int) -> tuple[bool, int, int]:
            distance = min(max(start - word, word - end + 1, 0) for start, end in (head, tail))
            return word not in (head[0], tail[0]), distance, word

        kept = sorted(sorted(range(len(words)), key=loss)[:limit])

        def moved(span: Span) -> Span:
            start, end = (sum(word < bound for word in kept) for bound in span)
            return start, end

        return self._encoded([words[i] for i in kept], (moved(head), moved(tail)))

    def _ids(self, word: str) -> tuple[int, list[int]]:
        """Return the ids of a word and of its characters."""
        found = self._known.get(word)
        if found is None:
            letters = [self._characters.get(letter, UNKNOWN) for letter in word[:_LONGEST_WORD]]
            found = self._known[word] = self.word_id(word), letters or [UNKNOWN]
        return found
