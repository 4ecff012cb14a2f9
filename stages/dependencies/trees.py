"""What a dependency tree is, and the fallback without a parser."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Tree", "chain", "fault_of"]


@dataclass(frozen=True)
class Tree:
    """The head of each word, a number of a word or -1 for a root, and what it is to its head."""

    heads: tuple[int, ...]
    relations: tuple[str, ...]


def fault_of(heads: Sequence[int]) -> str | None:
    """Return what is wrong with heads as those of a tree, or of a forest, or None.

    Every head is another word or -1, and following heads from any word ends at a root.
    """
    for word, head in enumerate(heads):
        if not -1 <= head < len(heads):
            return f"the head of word {word + 1} is word {head + 1}, and there are {len(heads)}"
    # A word whose way to a root is known is walked over once.
    ends = [head == -1 for head in heads]
    for word in range(len(heads)):
        way: list[int] = []
        at = word
        while not ends[at]:
            if at in way:
                return f"its heads form a cycle at word {at + 1}"
            way.append(at)
            at = heads[at]
        for walked in way:
            ends[walked] = True
    return None


def chain(words: int) -> Tree:
    """Return words of which each is linked to the next: a path, which says nothing of the sentence."""
    return Tree(tuple(range(-1, words - 1)), ("root", *["next"] * (words - 1)))
