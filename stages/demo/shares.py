"""Random choices in exact shares, for the generated corpora."""

from collections.abc import Sequence
from typing import TypeVar

from numpy.random import Generator

__all__ = ["balanced", "pick", "shared_out", "shuffled"]

_T = TypeVar("_T")


def pick(options: Sequence[_T], rng: Generator) -> _T:
    """Return one of `options`."""
    return options[int(rng.integers(len(options)))]


def shuffled(items: Sequence[_T], rng: Generator) -> list[_T]:
    """Return `items` in random order."""
    return [items[int(index)] for index in rng.permutation(len(items))]


def balanced(labels: Sequence[str], count: int, rng: Generator) -> list[str]:
    """Return `count` labels in random order; no label occurs more than once more than another."""
    return shuffled([labels[index % len(labels)] for index in range(count)], rng)


def shared_out(count: int, shares: Sequence[float]) -> list[int]:
    """Return `count` divided into whole numbers in the ratio of `shares`, by the largest remainder."""
    exact = [count * share / sum(shares) for share in shares]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(shares)), key=lambda index: parts[index] - exact[index])
    for index in by_remainder[: count - sum(parts)]:
        parts[index] += 1
    return parts
