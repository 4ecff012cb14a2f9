"""The sub-words of a pretrained encoder: its own tokenizer, with the entity markers of relations."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .encoded import EncodedTexts, Pieces, encoded_words
from .encoders.bert import load_tokenizer, save_tokenizer
from .limits import MARKERS, EncodedText, Span, encode_pair, special_tokens, word_pieces
from .reader import TextReader

__all__ = ["Subwords"]

_FOLDER = "tokenizer"  # in a model's folder


class Subwords(TextReader):
    """Reads texts by a tokenizer of transformers. stages.text.limits has the length rule."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.pad_id = tokenizer.pad_token_id
        self.unknown_id = tokenizer.unk_token_id

    @classmethod
    def of_encoder(cls, folder: Path, task: str) -> "Subwords":
        """Return the reader of the encoder in `folder`. Raises WeightsError without a tokenizer."""
        return cls(load_tokenizer(folder)).for_task(task)

    def for_task(self, task: str) -> "Subwords":
        """Return the reader, with the entity markers for relations; those that are there already stay."""
        if task == "re":
            self.tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)})
        return self

    @classmethod
    def of_model(cls, folder: Path) -> "Subwords":
        """Return the reader that `save` wrote. Raises WeightsError where there is none."""
        return cls(load_tokenizer(folder / _FOLDER))

    def encode(
        self,
        texts: Sequence[Sequence[str]],
        pairs: Sequence[tuple[Span, Span]] | None = None,
        *,
        limit: int,
    ) -> Sequence[EncodedText]:
        special = special_tokens(self.tokenizer)
        pieces = Pieces(self._alone)
        if pairs is None:
            return encoded_words(texts, pieces, limit=limit, special=special)
        markers = {marker: self.tokenizer.convert_tokens_to_ids(marker) for marker in MARKERS}
        return EncodedTexts.of(
            encode_pair(words, head, tail, limit=limit, special=special, markers=markers)
            for words, (head, tail) in zip(pieces.of(texts), pairs, strict=True)
        )

    def _alone(self, words: Sequence[str]) -> Iterator[list[int]]:
        """Yield the sub-words of each word."""
        for (pieces,) in word_pieces(self.tokenizer, [[word] for word in words]):
            yield pieces

    def phrases(self, phrases: Sequence[str]) -> list[list[int]]:
        """Return the sub-words of each phrase."""
        pieces = word_pieces(self.tokenizer, [phrase.split() for phrase in phrases])
        return [[piece for word in words for piece in word] for words in pieces]

    def followed(self, text: EncodedText, second: Sequence[Sequence[int]], *, limit: int) -> EncodedText:
        """Return a text with a second segment of phrases behind it, given as sub-words.

        The first phrase that does not fit into the limit, and those after it, are left out; nothing of the
        text is.
        """
        opening, closing = self._between
        ids = [*text.input_ids, *opening]
        for phrase in second:
            if len(ids) + len(phrase) + len(closing) > limit:
                break
            ids.extend(phrase)
        added = len(ids) > len(text.input_ids) + len(opening)
        return replace(text, input_ids=[*ids, *closing]) if added else text

    @cached_property
    def _between(self) -> tuple[list[int], list[int]]:
        """Return what a tokenizer puts between two segments, besides the end of the first, and at the end."""
        # Not of empty texts: an empty second segment is none to some tokenizers.
        alone, both = self.tokenizer("a")["input_ids"], self.tokenizer("a", "a")["input_ids"]
        return both[len(alone) : len(both) - len(alone) + 1], both[-1:]

    def save(self, folder: Path) -> None:
        save_tokenizer(self.tokenizer, folder / _FOLDER)
