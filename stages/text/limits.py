"""From samples to sub-words: what the text encoder reads, and which positions the heads look at.

The length limit counts sub-words, including special tokens. Entity extraction keeps whole words from the
start of the text for as long as they fit (and the beginning of a first word that does not fit). A word beyond
the limit is predicted O, and its gold mention still counts. Relation extraction drops the words farthest from
both arguments, so that the arguments and their markers always stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...manifests.errors import InputError, WeightsError

__all__ = ["MARKERS", "EncodedText", "Span", "encode_pair", "encode_words", "special_tokens", "word_pieces"]

Span = tuple[int, int]
"""A half-open range of words."""

MARKERS = ("[E1]", "[/E1]", "[E2]", "[/E2]")


@dataclass(frozen=True)
class EncodedText:
    """A text as the encoder reads it.

    input_ids: sub-words with special tokens.
    positions: the first sub-word of each kept word (NER), or [CLS] and the two opening markers (RE).
    words: how many words of the text are kept.
    characters: the ids of each kept word's characters, for systems on words.
    spans: the ranges of words of head and tail, for relations of systems on words.
    starts: the first sub-word of every word of the text, -1 for a word that was dropped.
    """

    input_ids: list[int]
    positions: list[int]
    words: int
    characters: list[list[int]] | None = None
    spans: tuple[Span, Span] | None = None
    starts: tuple[int, ...] | None = None


def special_tokens(tokenizer: Any) -> tuple[int, int]:
    """Return the ids that open and close a text: [CLS] and [SEP], or <s> and </s>.

    A tokenizer that frames a text by fewer names them all the same. Raises WeightsError where it does not.
    """
    frame = tokenizer("")["input_ids"]
    if len(frame) != 2:
        frame = [
            tokenizer.bos_token_id if tokenizer.cls_token_id is None else tokenizer.cls_token_id,
            tokenizer.eos_token_id if tokenizer.sep_token_id is None else tokenizer.sep_token_id,
        ]
    if None in frame:
        raise WeightsError(
            "the tokenizer names no token that opens a text (cls_token, bos_token), or none that closes it "
            "(sep_token, eos_token); name both in the encoder's tokenizer_config.json"
        )
    first, last = frame
    return first, last


def word_pieces(tokenizer: Any, texts: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Return the sub-word ids of every word of every text.

    A word has a space before it, also at the beginning and where the text has punctuation before it. One from
    which the tokenizer makes nothing (a no-break space) becomes [UNK].
    """
    if not texts:
        return []
    if not tokenizer.is_fast:
        return _pieces_alone(tokenizer, texts)
    written = [list(words) for words in texts]
    if _reads_spaces(tokenizer):  # an added token is one without its space
        added = tokenizer.get_added_vocab()
        written = [[word if word in added else f" {word}" for word in words] for words in texts]
    # A word of the text that is spelled like a special token or a marker is an ordinary word.
    encoded = tokenizer(
        written,
        is_split_into_words=True,
        add_special_tokens=False,
        split_special_tokens=True,
        verbose=False,
    )
    result = []
    for number, words in enumerate(texts):
        pieces: list[list[int]] = [[] for _ in words]
        for word, piece in zip(encoded.word_ids(number), encoded["input_ids"][number], strict=True):
            pieces[word].append(piece)
        result.append([piece or [tokenizer.unk_token_id] for piece in pieces])
    return result


def _reads_spaces(tokenizer: Any) -> bool:
    """Return whether a word is another one to the tokenizer without the space before it.

    ModernBERT's is such a one, and has no option by which words get their spaces, as RoBERTa's has.
    """

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    alone, spaced = ids("a"), ids(" a")
    return alone != spaced and ids("a a") == alone + spaced


def _pieces_alone(tokenizer: Any, texts: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Return `word_pieces` of a tokenizer in Python, which does not say from which word a sub-word is."""
    special = {*tokenizer.all_special_tokens, *MARKERS}
    added = {token: [number] for token, number in tokenizer.get_added_vocab().items() if token not in special}
    known = {
        word: added.get(word)
        or tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word, split_special_tokens=True))
        for word in {word for words in texts for word in words}
    }
    return [[known[word] or [tokenizer.unk_token_id] for word in words] for words in texts]


def encode_words(pieces: Sequence[Sequence[int]], *, limit: int, special: tuple[int, int]) -> EncodedText:
    """Return a text for entity extraction, at most `limit` sub-words long."""
    ids, positions = [special[0]], []
    # A text without a single word could not be scored: its first word stays, cut if necessary.
    for word in [pieces[0][: limit - 2], *pieces[1:]]:
        if len(ids) + len(word) + 1 > limit:
            break
        positions.append(len(ids))
        ids.extend(word)
    starts = (*positions, *[-1] * (len(pieces) - len(positions)))
    return EncodedText([*ids, special[1]], positions, len(positions), starts=starts)


def encode_pair(
    pieces: Sequence[Sequence[int]],
    head: tuple[int, int],
    tail: tuple[int, int],
    *,
    limit: int,
    special: tuple[int, int],
    markers: Mapping[str, int],
) -> EncodedText:
    """Return a text for relation extraction, with [E1] head [/E1] and [E2] tail [/E2].

    It has at most `limit` sub-words. head, tail: half-open word ranges. Raises InputError where even the
    markers do not fit.
    """
    budget = limit - 2 - len(MARKERS)
    if budget < 2:
        raise InputError(
            f"max_length {limit} leaves no room for the four entity markers; set it to at least "
            f"{len(MARKERS) + 4}"
        )
    kept = _words_that_fit(pieces, head, tail, budget)
    opening: dict[int, list[int]] = {head[0]: [], tail[0]: []}
    closing: dict[int, list[int]] = {head[1]: [], tail[1]: []}
    # At one place, all closing markers come before all opening ones; of nested arguments the longer one opens
    # first and closes last.
    for name, (start, end) in sorted((("1", head), ("2", tail)), key=lambda item: item[1][0] - item[1][1]):
        opening[start].append(markers[f"[E{name}]"])
        closing[end].insert(0, markers[f"[/E{name}]"])
    ids, starts = [special[0]], []
    for position in range(len(pieces) + 1):
        ids.extend(closing.get(position, []))
        ids.extend(opening.get(position, []))
        if position < len(pieces):
            starts.append(len(ids) if kept[position] else -1)
            ids.extend(kept[position])
    ids.append(special[1])
    positions = [0, ids.index(markers["[E1]"]), ids.index(markers["[E2]"])]
    return EncodedText(ids, positions, sum(start >= 0 for start in starts), starts=tuple(starts))


def _words_that_fit(
    pieces: Sequence[Sequence[int]], head: tuple[int, int], tail: tuple[int, int], budget: int
) -> list[Sequence[int]]:
    """Return the pieces of each word, emptied for the words farthest from both arguments.

    Words are emptied until `budget` sub-words are left.
    """
    kept = list(pieces)
    size = sum(map(len, kept))

    def distance(word: int) -> int:
        return min(max(start - word, word - end + 1, 0) for start, end in (head, tail))

    # Words of the arguments go last; of equally distant words the later one goes first.
    order = sorted(range(len(kept)), key=lambda word: (-distance(word), -word))
    for word in order:
        if size <= budget:
            break
        size -= len(kept[word])
        kept[word] = ()
    return kept
