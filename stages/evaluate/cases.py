"""Which samples are worth looking at: chosen by what two models make of them, never at random."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest

import pyarrow as pa
import pyarrow.compute as pc

from ...manifests.errors import InputError
from ..learning.columns import rows_in_turn, rows_of
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


@dataclass(frozen=True, slots=True)
class _Judged:
    """A sample with an image in which one of two models is wrong, or both.

    group: HELPED where ours is right in all, HURT where the other is, and WRONG. worth: how many answers are
    wrong or missing. answer: what the case is about.
    """

    number: int
    id: str
    group: str
    worth: int
    answer: Entity


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
    judged = list(_judged(ours, others, task, negative))
    cases = [*_first(HELPED, judged, each), *_first(HURT, judged, each)]
    taken = {case.number for case in cases}
    place = {one.id: one.number for one in judged}
    ranked = sorted((-sure, *answer) for answer, sure in probabilities.items() if answer[0] in place)
    for _, id_, answer in ranked:
        if (number := place[id_]) not in taken and sum(case.group == SURE for case in cases) < each:
            taken.add(number)
            cases.append(Case(SURE, number, answer))
    return [*cases, *_first(WRONG, (one for one in judged if one.number not in taken), each)]


def _judged(ours: pa.Table, others: pa.Table, task: str, negative: str | None) -> Iterator[_Judged]:
    """Yield what is wrong in the samples that both predictions have, in the order of ours."""
    columns = ["id", "gold", "predicted", "has_image"]
    there = others["predicted"].take(pc.index_in(ours["id"], others["id"].combine_chunks()))
    rows = rows_in_turn(ours.select(columns).append_column("other", there), [*columns, "other"])
    for number, row in enumerate(rows):
        if row["other"] is None or not row["has_image"] or row["gold"] == row["predicted"] == row["other"]:
            continue
        gold, ours_, others_ = (
            set(found_of(row[which], task, negative)) for which in ("gold", "predicted", "other")
        )
        if gold == ours_ == others_:
            continue
        group = HELPED if ours_ == gold else HURT if others_ == gold else WRONG
        kept, lost = (ours_, others_) if group == HELPED else (others_, ours_)
        # The first gold answer that changes, or what is wrong.
        changes = (gold & kept) - lost or gold - lost or lost - gold or kept - gold
        answer = min(changes, key=lambda answer: (answer[1:], answer))
        yield _Judged(number, row["id"], group, len(lost ^ gold), answer)


def _first(group: str, judged: Iterable[_Judged], each: int) -> list[Case]:
    own = (one for one in judged if one.group == group)
    ranked = nsmallest(each, own, key=lambda one: (-one.worth, one.id))
    return [Case(group, one.number, one.answer) for one in ranked]


def named(predictions: pa.Table, ids: Sequence[str], task: str, negative: str | None) -> list[Case]:
    """Return the cases of these samples, in their order, each about its first answer, of the gold if any."""
    numbers = pc.index_in(pa.array(ids, pa.string()), predictions["id"].combine_chunks())
    cases = []
    for number, row in zip(numbers.to_pylist(), predictions.take(numbers).to_pylist(), strict=True):
        answers = [
            answer for which in ("gold", "predicted") for answer in found_of(row[which], task, negative)
        ]
        cases.append(Case(NAMED, number, answers[0] if answers else (row["gold"][0], 0, 0)))
    return cases


def resolved(samples: pa.Table, split: str, ids: Sequence[str]) -> list[str]:
    """Return the ids of samples of a split, each once. PAPER stands for the paper's own sentences.

    samples: manifests.schemas.SAMPLES. Raises InputError, which names it, where a sample is not there.
    """
    if not ids:
        return []
    rows = rows_of(samples, "split", split)
    wanted = [one for asked in ids for one in (_of_paper(rows) if asked == PAPER else [asked])]
    places = pc.index_in(pa.array(wanted, pa.string()), rows["id"].combine_chunks())
    if unknown := [one for one, place in zip(wanted, places.to_pylist(), strict=True) if place is None]:
        raise InputError(
            f"--cases {unknown[0]}: no sample of the {split} split has this id; ids are in samples.parquet, "
            f"and {PAPER!r} stands for the paper's three sentences of MNRE"
        )
    return list(dict.fromkeys(wanted))


def _of_paper(rows: pa.Table) -> list[str]:
    """Return the ids of the paper's sentences, by head and tail. Raises InputError where none is there."""
    found: dict[frozenset[str], str] = {}
    for row in rows_in_turn(rows, ["id", "tokens", "head", "tail"]):
        if row["head"] is not None:
            ends = (" ".join(row["tokens"][slice(*row[which])]) for which in ("head", "tail"))
            found.setdefault(frozenset(ends), row["id"])
    there = [found[key] for sentence in _SENTENCES if (key := frozenset(sentence)) in found]
    if not there:
        raise InputError(
            f"--cases {PAPER}: none of the paper's sentences is here; they are in the test split of MNRE"
        )
    return there
