"""Many texts as an encoder reads them, in flat arrays: of a million, lists of lists would take 5 GB."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import numpy as np
import numpy.typing as npt

from .limits import EncodedText

__all__ = ["EncodedTexts", "Pieces", "counted_pieces", "encoded_words", "lengths_of", "shortened"]

_Numbers = npt.NDArray[np.int32]

# Texts whose words are looked at together.
_AT_ONCE = 2**14


class Pieces:
    """The sub-words of every word that was met so far, each of which is cut up once.

    A word has the sub-words that it has alone, wherever it stands (limits.word_pieces). cut: returns those of
    each word.
    """

    def __init__(self, cut: Callable[[Sequence[str]], Iterable[Sequence[int]]]) -> None:
        self._cut = cut
        self._numbers: dict[str, int] = {}
        self._ids, self._ends = array("i"), array("q", [0])

    def numbers(self, texts: Iterable[Sequence[str]]) -> _Numbers:
        """Return the number of each word of the texts, one after the other."""
        known, before = self._numbers, len(self._numbers)
        found = [known.setdefault(word, len(known)) for text in texts for word in text]
        for pieces in self._cut([*islice(known, before, None)]) if len(known) > before else ():
            self._ids.extend(pieces)
            self._ends.append(len(self._ids))
        return np.array(found, np.int32)

    def arrays(self) -> tuple[_Numbers, npt.NDArray[np.int64]]:
        """Return the sub-words of all words, and where those of each word begin, with the end of the last."""
        # Copies, as an array that is looked into cannot grow.
        return np.array(self._ids, np.int32), np.array(self._ends, np.int64)

    def of(self, texts: Iterable[Sequence[str]]) -> Iterator[list[list[int]]]:
        """Yield the sub-words of each word of each text."""
        source = iter(texts)
        while chunk := list(islice(source, _AT_ONCE)):
            numbers = iter(self.numbers(chunk).tolist())
            for text in chunk:
                yield [
                    self._ids[self._ends[number] : self._ends[number + 1]].tolist()
                    for number in islice(numbers, len(text))
                ]


class EncodedTexts(Sequence[EncodedText]):
    """Texts as sub-words, each of which is made when it is asked for.

    ids: the sub-words of all texts, and ends: where those of each text end. starts: the first sub-word of
    each word, -1 for one that was dropped, and word_ends: where those of each text end. positions: (n, p) of
    the texts, for relations; None: the starts are.
    """

    def __init__(
        self,
        ids: _Numbers,
        ends: npt.NDArray[np.int64],
        starts: _Numbers,
        word_ends: npt.NDArray[np.int64],
        positions: _Numbers | None = None,
    ) -> None:
        self._ids, self._ends = ids, np.concatenate([[0], ends])
        self._starts, self._word_ends = starts, np.concatenate([[0], word_ends])
        self._positions = positions

    @classmethod
    def of(cls, texts: Iterable[EncodedText]) -> "EncodedTexts":
        """Return texts for relations (limits.encode_pair), of which one is held at a time."""
        ids, starts, positions = array("i"), array("i"), array("i")
        ends, word_ends = array("q"), array("q")
        for text in texts:
            ids.extend(text.input_ids)
            starts.extend(text.starts or ())
            positions.extend(text.positions)
            ends.append(len(ids))
            word_ends.append(len(starts))
        flat = [np.array(each, np.int32) for each in (ids, starts, positions)]
        borders = [np.array(each, np.int64) for each in (ends, word_ends)]
        return cls(flat[0], borders[0], flat[1], borders[1], flat[2].reshape(len(ends), -1 if ends else 0))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> EncodedText: ...
    @overload
    def __getitem__(self, index: slice) -> list[EncodedText]: ...
    def __getitem__(self, index: int | slice) -> EncodedText | list[EncodedText]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        i = range(len(self))[index]
        ids = self._ids[self._ends[i] : self._ends[i + 1]].tolist()
        starts = self._starts[self._word_ends[i] : self._word_ends[i + 1]].tolist()
        kept = [start for start in starts if start >= 0]
        positions = kept if self._positions is None else self._positions[i].tolist()
        return EncodedText(ids, positions, len(kept), starts=tuple(starts))

    def taken(self, numbers: Sequence[int]) -> "EncodedTexts":
        """Return the texts of these numbers, in this order."""
        chosen = np.array(numbers, np.int64)
        ids, ends = _ranges_of(self._ids, self._ends, chosen)
        starts, word_ends = _ranges_of(self._starts, self._word_ends, chosen)
        positions = None if self._positions is None else self._positions[chosen]
        return EncodedTexts(ids, ends, starts, word_ends, positions)

    @property
    def lengths(self) -> list[int]:
        """Return how many sub-words each text has, with special tokens."""
        lengths: list[int] = np.diff(self._ends).tolist()
        return lengths

    @property
    def shortened(self) -> int:
        """Return from how many texts words were dropped."""
        dropped = np.concatenate([[0], np.cumsum(self._starts < 0)])
        return int((dropped[self._word_ends[1:]] > dropped[self._word_ends[:-1]]).sum())

    def counted(self, piece: int) -> tuple[int, int]:
        """Return what `counted_pieces` does."""
        inner = np.ones(len(self._ids), np.bool_)
        inner[self._ends[:-1]] = inner[self._ends[1:] - 1] = False
        return int((self._ids[inner] == piece).sum()), int(inner.sum())


def _ranges_of(
    values: _Numbers, ends: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]
) -> tuple[_Numbers, npt.NDArray[np.int64]]:
    """Return the values of some texts, one after the other, and where those of each end."""
    begins, sizes = ends[chosen], ends[chosen + 1] - ends[chosen]
    new_ends = np.cumsum(sizes)
    places = np.arange(sizes.sum()) + np.repeat(begins - new_ends + sizes, sizes)
    return values[places], new_ends


def lengths_of(texts: Sequence[EncodedText]) -> list[int]:
    """Return how many numbers the encoder reads of each text."""
    return texts.lengths if isinstance(texts, EncodedTexts) else [len(text.input_ids) for text in texts]


def shortened(texts: Sequence[EncodedText], words: Sequence[Sequence[str]]) -> int:
    """Return from how many texts words were dropped. words: those of each text."""
    if isinstance(texts, EncodedTexts):
        return texts.shortened
    return sum(text.words < len(each) for text, each in zip(texts, words, strict=True))


def counted_pieces(texts: Sequence[EncodedText], piece: int) -> tuple[int, int]:
    """Return how often a sub-word is there, and how many there are but for each text's first and last."""
    if isinstance(texts, EncodedTexts):
        return texts.counted(piece)
    pieces = [each for text in texts for each in text.input_ids[1:-1]]
    return pieces.count(piece), len(pieces)


def encoded_words(
    texts: Iterable[Sequence[str]], pieces: Pieces, *, limit: int, special: tuple[int, int]
) -> EncodedTexts:
    """Return what limits.encode_words makes of each text, for all of them at once."""
    parts: list[tuple[_Numbers, npt.NDArray[np.int64], _Numbers, npt.NDArray[np.int64]]] = []
    source = iter(texts)
    while chunk := list(islice(source, _AT_ONCE)):
        words = np.array([len(text) for text in chunk], np.int64)
        parts.append(_encoded(pieces.numbers(chunk), words, *pieces.arrays(), limit, special))
    ids, ends, starts, word_ends = ([part[place] for part in parts] for place in range(4))
    return EncodedTexts(
        np.concatenate([np.zeros(0, np.int32), *ids]),
        np.cumsum(np.concatenate([np.zeros(0, np.int64), *ends])),
        np.concatenate([np.zeros(0, np.int32), *starts]),
        np.cumsum(np.concatenate([np.zeros(0, np.int64), *word_ends])),
    )


def _encoded(
    numbers: _Numbers,
    words: npt.NDArray[np.int64],
    all_ids: _Numbers,
    begins: npt.NDArray[np.int64],
    limit: int,
    special: tuple[int, int],
) -> tuple[_Numbers, npt.NDArray[np.int64], _Numbers, npt.NDArray[np.int64]]:
    """Return the sub-words of some texts, the number of these in each, the starts, and the number of words.

    numbers: of the words, one after the other. words: how many each text has, at least one. all_ids, begins:
    as `Pieces.arrays` returns them.
    """
    first = np.cumsum(words) - words  # the place of each text's first word
    text_of = np.repeat(np.arange(len(words)), words)
    sizes = begins[numbers + 1] - begins[numbers]
    # A first word that does not fit is cut.
    sizes[first] = np.minimum(sizes[first], limit - 2)
    until = np.cumsum(sizes)
    until -= (until[first] - sizes[first])[text_of]  # sub-words of the text up to and with this word
    kept = until + 2 <= limit
    starts = np.where(kept, 1 + until - sizes, -1).astype(np.int32)
    sizes = sizes[kept]
    lengths = 2 + np.bincount(text_of[kept], sizes, len(words)).astype(np.int64)
    ends = np.cumsum(lengths)
    ids = np.empty(ends[-1], np.int32)
    ids[ends - lengths], ids[ends - 1] = special
    # The place of each kept sub-word among those of its text and of its word.
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.repeat((ends - lengths)[text_of[kept]] + starts[kept], sizes) + within
    ids[place] = all_ids[np.repeat(begins[numbers[kept]], sizes) + within]
    return ids, lengths, starts, words
