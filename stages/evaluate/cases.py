"""Which samples are worth looking at: chosen by what two models make of them, never at random."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ...manifests.errors import InputError
from ..learning.errors import Entity, found_of

__all__ = ["HELPED", "HURT", "NAMED", "PAPER", "SURE", "WRONG", "Case", "choose", "named", "resolved"]

HELPED, HURT, WRONG, SURE, NAMED = "helped", "hurt", "wrong", "sure", "named"

PAPER = "paper"
"""In the place of an id: the three sentences of the paper's Table 2, which are in the test split of MNRE."""

_SENTENCES = (("Taylor Hill", "Jun"), ("Limpopo Province", "Blyde River Canyon"), ("Bush", "America"))


@dataclass(frozen=True)
class Case:
    """A sample, the group that it was chosen for, and the answer that it is about.

    number: of the row of the predictions.
    """

    group: str
    number: int
    answer: Entity


@dataclass(frozen=True)
class _Judged:
    number: int
    id: str
    has_image: bool
    gold: list[Entity]
    ours: set[Entity]
    others: set[Entity]

    @property
    def ours_right(self) -> bool:
        return set(self.gold) == self.ours

    @property
    def others_right(self) -> bool:
        return set(self.gold) == self.others


def choose(
    ours: pa.Table,
    others: pa.Table,
    task: str,
    negative: str | None,
    probabilities: Mapping[tuple[str, Entity], float],
    each: int = 6,
) -> list[Case]:
    """Return at most `each` cases of HELPED, HURT, WRONG and SURE; no sample is in two groups.

    ours, others: predictions (manifests.schemas.PREDICTIONS) of the same samples by the model that sees
    images, and by one that does not. Only samples with an image are chosen.

    - HELPED: ours is right in all, and the other is not. First where most answers are gained.
    - HURT: the other is right in all, and ours is not. First where most answers are lost.
    - SURE: the wrong answers of ours of the greatest probability, in samples that are none of these.
    - WRONG: neither is right in all, in samples that are none of these. First where most of ours is wrong.

    Among equals the ids decide. probabilities: of wrong answers of ours, by the id of the sample.
    """
    judged = [one for one in _judged(ours, others, task, negative) if one.has_image]
    helped = [one for one in judged if one.ours_right and not one.others_right]
    hurt = [one for one in judged if one.others_right and not one.ours_right]
    cases = [
        *_first(HELPED, helped, lambda one: len(one.others ^ set(one.gold)), each),
        *_first(HURT, hurt, lambda one: len(one.ours ^ set(one.gold)), each),
    ]
    taken = {case.number for case in cases}
    ranked = sorted(
        (-sure, one.id, one.number, answer)
        for one in judged
        if one.number not in taken
        for answer in one.ours - set(one.gold)
        if (sure := probabilities.get((one.id, answer))) is not None
    )
    for _, _, number, answer in ranked:
        if number not in taken and sum(case.group == SURE for case in cases) < each:
            taken.add(number)
            cases.append(Case(SURE, number, answer))
    wrong = [one for one in judged if not (one.ours_right or one.others_right or one.number in taken)]
    return [*cases, *_first(WRONG, wrong, lambda one: len(one.ours ^ set(one.gold)), each)]


def _judged(ours: pa.Table, others: pa.Table, task: str, negative: str | None) -> list[_Judged]:
    other = {row["id"]: row["predicted"] for row in others.select(["id", "predicted"]).to_pylist()}
    return [
        _Judged(
            number,
            row["id"],
            row["has_image"],
            found_of(row["gold"], task, negative),
            set(found_of(row["predicted"], task, negative)),
            set(found_of(other[row["id"]], task, negative)),
        )
        for number, row in enumerate(ours.to_pylist())
        if row["id"] in other
    ]


def _first(group: str, judged: Iterable[_Judged], worth: Any, each: int) -> list[Case]:
    ranked = sorted(judged, key=lambda one: (-worth(one), one.id))
    return [Case(group, one.number, _answer(one, group)) for one in ranked[:each]]


def _answer(one: _Judged, group: str) -> Entity:
    """Return the answer that a sample was chosen for: the first gold one that changes, or what is wrong."""
    gold = set(one.gold)
    kept, lost = (one.ours, one.others) if group == HELPED else (one.others, one.ours)
    changes = (gold & kept) - lost or gold - lost or lost - gold or kept - gold
    return min(changes, key=lambda answer: (answer[1:], answer))


def named(predictions: pa.Table, ids: Sequence[str], task: str, negative: str | None) -> list[Case]:
    """Return the cases of these samples, in their order, each about its first answer, of the gold if any."""
    rows = {row["id"]: (number, row) for number, row in enumerate(predictions.to_pylist())}
    cases = []
    for one in ids:
        number, row = rows[one]
        answers = [
            answer for which in ("gold", "predicted") for answer in found_of(row[which], task, negative)
        ]
        cases.append(Case(NAMED, number, answers[0] if answers else (row["gold"][0], 0, 0)))
    return cases


def resolved(samples: pa.Table, split: str, ids: Sequence[str]) -> list[str]:
    """Return the ids of samples of a split, each once. PAPER stands for the paper's own sentences.

    samples: manifests.schemas.SAMPLES. Raises InputError, which names it, where a sample is not there.
    """
    rows = [row for row in samples.to_pylist() if row["split"] == split] if ids else []
    known = {row["id"] for row in rows}
    wanted = [one for asked in ids for one in (_of_paper(rows) if asked == PAPER else [asked])]
    if unknown := [one for one in wanted if one not in known]:
        raise InputError(
            f"--cases {unknown[0]}: no sample of the {split} split has this id; ids are in samples.parquet, "
            f"and {PAPER!r} stands for the paper's three sentences of MNRE"
        )
    return list(dict.fromkeys(wanted))


def _of_paper(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the ids of the paper's sentences, by head and tail. Raises InputError where none is there."""
    found: dict[frozenset[str], str] = {}
    for row in rows:
        if row["head"] is not None:
            ends = (" ".join(row["tokens"][slice(*row[which])]) for which in ("head", "tail"))
            found.setdefault(frozenset(ends), row["id"])
    there = [found[key] for sentence in _SENTENCES if (key := frozenset(sentence)) in found]
    if not there:
        raise InputError(
            f"--cases {PAPER}: none of the paper's sentences is here; they are in the test split of MNRE"
        )
    return there
