"""The low-resource setting: which training samples a trial is trained on, drawn without replacement.

What more shots draw holds what fewer draw, from the same seed: a permutation of the split decides alone. The
seed is the subset's own, so that every system, and every seed of a training, sees the same samples.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...manifests.fingerprint import digest_json
from ...manifests.trial import Trial
from .splits import Split

__all__ = ["drawn", "few_shots", "share_of", "subset_digest"]


def drawn(split: Split, trial: Trial, negative: str | None) -> Split:
    """Return the samples of a training split that a trial is trained on: all, or what its seed draws.

    negative: the relation that says that there is nothing to find, or None.
    """
    if trial.percent:
        return share_of(split, trial.percent, trial.subset_seed)
    if not trial.shots:
        return split
    return few_shots(split, trial.shots, trial.subset_seed, natural=trial.natural, negative=negative)


def few_shots(
    split: Split, shots: int, seed: int, *, natural: bool = False, negative: str | None = None
) -> Split:
    """Return `shots` samples of each class, in the split's order; a class that has fewer gives all.

    A class is a relation, or an entity type; a sentence of several types counts for each. Relations: the
    first of each class in a permutation. Entities: the permutation is walked, and a sentence is taken that
    has a type of fewer than `shots` and leaves none with more than twice as many, once for each number up to
    `shots`. Where no more than that is possible, a type that still lacks sentences takes them all the same.

    natural: samples without anything to find (sentences without an entity, or the `negative` relation) are
    no class; they are drawn by their share in the whole split. Otherwise the negative relation is a class as
    any other, and sentences without an entity are not drawn.
    """
    classes = [_classes(gold) for gold in split.gold]
    if natural:
        classes = [names - {negative} for names in classes]
    order = np.random.default_rng(seed).permutation(len(split)).tolist()
    chosen: set[int] = set()
    counts: Counter[str | None] = Counter()

    def walk(least: int, most: float) -> None:
        for i in order:
            names = classes[i]
            if i in chosen or not any(counts[name] < least for name in names):
                continue
            if all(counts[name] < most for name in names):
                chosen.add(i)
                counts.update(names)

    largest = max(Counter(name for names in classes for name in names).values(), default=0)
    for number in range(1, min(shots, largest) + 1):
        walk(number, 2 * number)
        walk(number, float("inf"))
    if natural:
        nothing = [i for i in order if not classes[i]]
        found = len(split) - len(nothing)
        chosen.update(nothing[: round(len(chosen) * len(nothing) / found)] if found else nothing[:shots])
    return split.take(sorted(chosen))


def _classes(gold: Sequence[str]) -> set[str | None]:
    return {label[2:] if label[:2] in ("B-", "I-") else label for label in gold if label != "O"}


def share_of(split: Split, percent: int, seed: int) -> Split:
    """Return `percent` percent of a split's samples, at least one, in its order, of whatever classes."""
    order = np.random.default_rng(seed).permutation(len(split)).tolist()
    return split.take(sorted(order[: max(1, round(len(split) * percent / 100))]))


def subset_digest(split: Split) -> str:
    """Return the digest of which samples a split holds, whatever their order."""
    return digest_json(sorted(split.ids))
