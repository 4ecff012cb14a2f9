"""Whether the difference of two systems is more than chance: tests and intervals whose unit is the sentence.

A sentence with several relations is one unit with all its rows: they share words and image, and are not drawn
one by one. The tests are approximate randomisation (Noreen 1989; Yeh 2000) and a bootstrap over seeds and
sentences; Holm's correction is for a table of several comparisons.

Symbols: S seeds, C sentences. Counts are (S, C, 3): correct, predicted and gold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from seqeval.metrics.sequence_labeling import get_entities

__all__ = ["Difference", "compare", "counts_of", "f1_of", "holm", "interval", "randomisation"]

Counts = npt.NDArray[np.int64]

_AT_ONCE = 1000  # trials whose masks are held in memory together


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


def counts_of(
    sentences: Sequence[Sequence[str]],
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    *,
    task: str,
    negative: str | None = None,
) -> dict[tuple[str, ...], list[int]]:
    """Return what was correct, predicted and gold in each sentence, over all of its rows.

    sentences: the words of each row. gold, predicted: BIO tags, or lists of one relation. negative: the
    relation that counts as nothing to find.
    """
    found: dict[tuple[str, ...], list[int]] = {}
    for words, truth, guess in zip(sentences, gold, predicted, strict=True):
        if task == "ner":
            here, there = set(get_entities(list(truth))), set(get_entities(list(guess)))
        else:
            here, there = ({(label,)} - {(negative,)} for label in (truth[0], guess[0]))
        counts = found.setdefault(tuple(words), [0, 0, 0])
        for place, number in enumerate((len(here & there), len(there), len(here))):
            counts[place] += number
    return found


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
    sentences, change = one.shape[1], (other - one).astype(np.float64)
    sums = one.sum(axis=1), other.sum(axis=1)
    observed = abs(float((f1_of(sums[0]) - f1_of(sums[1])).mean()))
    hits = 0
    for start in range(0, trials, _AT_ONCE):
        count = min(_AT_ONCE, trials - start)
        swapped = drawn.integers(0, 2, (count, sentences)).astype(np.float64)
        moved = np.einsum("tc,sck->tsk", swapped, change, optimize=True)
        difference = f1_of(sums[0] + moved) - f1_of(sums[1] - moved)  # shape: (count, S)
        # What rounds differently is no less extreme.
        hits += int((np.abs(difference.mean(axis=1)) >= observed - 1e-12).sum())
    return (1 + hits) / (1 + trials)


def interval(
    one: Counts, other: Counts, *, trials: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return the bounds of the percentile interval of the mean difference of F1, one less other.

    Each trial draws seeds, and then sentences, with replacement.
    """
    drawn = np.random.default_rng(seed)
    seeds, sentences = one.shape[:2]
    values = np.empty(trials)
    both = np.concatenate([one, other], axis=2).astype(np.float64)  # shape: (S, C, 6)
    for start in range(0, trials, _AT_ONCE):
        count = min(_AT_ONCE, trials - start)
        often = drawn.multinomial(sentences, np.full(sentences, 1 / sentences), size=count)
        totals = np.einsum("tc,sck->tsk", often.astype(np.float64), both, optimize=True)
        chosen = drawn.integers(0, seeds, (count, seeds))
        difference = f1_of(totals[..., :3]) - f1_of(totals[..., 3:])  # shape: (count, S)
        values[start : start + count] = np.take_along_axis(difference, chosen, axis=1).mean(axis=1)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in their order (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, most = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = most
    return corrected


def compare(
    one: Sequence[dict[tuple[str, ...], list[int]]],
    other: Sequence[dict[tuple[str, ...], list[int]]],
    *,
    trials: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Return the difference of two systems by their counts of paired seeds, made by `counts_of`.

    Raises ValueError where they are not of the same sentences.
    """
    sentences = list(one[0])
    if any(counts.keys() != one[0].keys() for counts in (*one, *other)):
        raise ValueError("the predictions are not of the same sentences")
    ours, theirs = (
        np.array([[counts[words] for words in sentences] for counts in each]) for each in (one, other)
    )
    value = float((f1_of(ours.sum(axis=1)) - f1_of(theirs.sum(axis=1))).mean())
    low, high = interval(ours, theirs, trials=trials, seed=seed)
    p = randomisation(ours, theirs, trials=trials, seed=seed)
    return Difference(value, low, high, p, len(ours))
