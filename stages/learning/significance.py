"""Whether the difference of two systems is more than chance: tests and intervals whose unit is the sentence.

A sentence with several relations is one unit with all its rows: they share words and image, and are not drawn
one by one. The tests are approximate randomisation (Noreen 1989; Yeh 2000) and a bootstrap over seeds and
sentences; Holm's correction is for a table of several comparisons.

Symbols: S seeds, C sentences, K kinds of sentences. Counts are (S, C, 3): correct, predicted and gold.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .errors import found_of

__all__ = ["Counted", "Difference", "compare", "counts_of", "f1_of", "holm", "interval", "randomisation"]

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Difference:
    """The F1 of one system less that of another, the mean over paired seeds.

    low, high: the bounds of the 95% interval. p: of no difference, two-sided. seeds: how many were paired.
    """

    value: float
    low: float
    high: float
    p: float
    seeds: int


@dataclass(frozen=True)
class Counted:
    """What was correct, predicted and gold in each sentence of a split, (C, 3), over all of its rows.

    sentences: their words, each once, in the order in which they come first.
    """

    sentences: pa.Array
    counts: Counts


def counts_of(
    sentences: pa.ChunkedArray | pa.Array,
    gold: Iterable[Sequence[str]],
    predicted: Iterable[Sequence[str]],
    *,
    task: str,
    negative: str | None = None,
) -> Counted:
    """Return what was correct, predicted and gold in each sentence.

    sentences: the words of each row, a list each. gold, predicted: BIO tags, or lists of one relation.
    negative: the relation that counts as nothing to find.
    """
    numbers = np.empty((len(sentences), 3), np.int64)
    for row, (truth, guess) in enumerate(zip(gold, predicted, strict=True)):
        here, there = (set(found_of(labels, task, negative)) for labels in (truth, guess))
        numbers[row] = len(here & there), len(there), len(here)
    # A million sentences as tuples of words would take gigabytes.
    joined = pc.binary_join(sentences, "\x1f")
    texts = (joined if isinstance(joined, pa.ChunkedArray) else pa.chunked_array([joined])).unique()
    counts = np.zeros((len(texts), 3), np.int64)
    np.add.at(counts, pc.index_in(joined, texts).to_numpy(), numbers)
    return Counted(texts, counts)


def f1_of(totals: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return F1 of totals (..., 3): correct, predicted, gold. Nothing predicted and nothing gold scores 0."""
    total = totals.astype(np.float64)
    return 2 * total[..., 0] / np.maximum(total[..., 1] + total[..., 2], 1)


def randomisation(one: Counts, other: Counts, *, trials: int = 10_000, seed: int = 0) -> float:
    """Return the p-value of no difference between two systems, by approximate randomisation.

    one, other: counts of the same sentences and seeds. Each trial swaps the two systems' answers in a random
    half of the sentences, in all seeds alike; the statistic is the mean difference of F1 over the seeds.
    """
    drawn = np.random.default_rng(seed)
    (one, other), often = _kinds(one, other)
    change = (other - one).astype(np.float64)
    sums = (often[:, None] * one).sum(axis=1), (often[:, None] * other).sum(axis=1)
    observed = abs(float((f1_of(sums[0]) - f1_of(sums[1])).mean()))
    swapped = drawn.binomial(often, 0.5, (trials, len(often))).astype(np.float64)
    moved = np.einsum("tc,sck->tsk", swapped, change, optimize=True)
    difference = f1_of(sums[0] + moved) - f1_of(sums[1] - moved)  # shape: (trials, S)
    # What rounds differently is no less extreme.
    hits = int((np.abs(difference.mean(axis=1)) >= observed - 1e-12).sum())
    return (1 + hits) / (1 + trials)


def interval(
    one: Counts, other: Counts, *, trials: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return the bounds of the percentile interval of the mean difference of F1, one less other.

    Each trial draws seeds, and then sentences, with replacement.
    """
    drawn = np.random.default_rng(seed)
    seeds, sentences = one.shape[:2]
    (one, other), often = _kinds(one, other)
    both = np.concatenate([one, other], axis=2).astype(np.float64)  # shape: (S, K, 6)
    counts = drawn.multinomial(sentences, often / sentences, size=trials)
    totals = np.einsum("tc,sck->tsk", counts.astype(np.float64), both, optimize=True)
    chosen = drawn.integers(0, seeds, (trials, seeds))
    difference = f1_of(totals[..., :3]) - f1_of(totals[..., 3:])  # shape: (trials, S)
    values = np.take_along_axis(difference, chosen, axis=1).mean(axis=1)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _kinds(one: Counts, other: Counts) -> tuple[tuple[Counts, Counts], npt.NDArray[np.int64]]:
    """Return the distinct counts of sentences, (S, K, 3) of each system, and how many sentences have them.

    A draw of sentences is one of how often each kind is drawn: of a million sentences that are of some
    hundred kinds, 10,000 draws take no more than of a thousand. The kinds are in the order in which they come
    first, so that the two systems may change places.
    """
    rows = np.concatenate([one, other], axis=2).transpose(1, 0, 2).reshape(one.shape[1], -1)
    _, first, often = np.unique(rows, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    places = first[order]
    return (one[:, places], other[:, places]), often[order]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in their order (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, most = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = most
    return corrected


def compare(
    one: Sequence[Counted],
    other: Sequence[Counted],
    *,
    trials: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Return the difference of two systems by their counts of paired seeds, made by `counts_of`.

    Raises ValueError where they are not of the same sentences.
    """
    sentences = one[0].sentences
    ours, theirs = (np.stack([_counts_for(sentences, each) for each in some]) for some in (one, other))
    value = float((f1_of(ours.sum(axis=1)) - f1_of(theirs.sum(axis=1))).mean())
    low, high = interval(ours, theirs, trials=trials, seed=seed)
    p = randomisation(ours, theirs, trials=trials, seed=seed)
    return Difference(value, low, high, p, len(ours))


def _counts_for(sentences: pa.Array, counted: Counted) -> Counts:
    """Return the counts of sentences in their order. Raises ValueError where they are of others."""
    if counted.sentences.equals(sentences):
        return counted.counts
    places = pc.index_in(sentences, counted.sentences)
    if places.null_count or len(places) != len(counted.sentences):
        raise ValueError("the predictions are not of the same sentences")
    found: Counts = counted.counts[places.to_numpy()]
    return found
