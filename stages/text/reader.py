"""What reads text for an encoder: it is saved and loaded with the model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from .limits import EncodedText, Span

__all__ = ["TextReader"]


class TextReader(ABC):
    """Turns the words of texts into the numbers that an encoder reads.

    pad_id: what fills short texts of a batch. unknown_id: what stands for everything that it does not know.
    """

    pad_id: int
    unknown_id: int

    @abstractmethod
    def encode(
        self,
        texts: Sequence[Sequence[str]],
        pairs: Sequence[tuple[Span, Span]] | None = None,
        *,
        limit: int,
    ) -> Sequence[EncodedText]:
        """Return texts, given as words, as the encoder reads them.

        pairs: the head and tail of each text, for relations; None for entities. limit: the most numbers that
        a text may have. Raises InputError where the limit leaves no room for a pair.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write into a model's folder whatever opening the reader again needs."""
