"""Kinds of errors in entities and relations, which types are taken for which, and partial credit.

Entities of the gold and of the prediction are paired one to one: first those that are equal, then those of
the same words, then those that overlap with the same type, then those that overlap; among these the longest
overlap first, then the first in the text. What stays alone is missed or spurious. The four schemes of
`schemes` are those of SemEval-2013, task 9 (Segura-Bedmar et al. 2013), as nervaluate counts them.

A relation is treated as an entity on one and the same place: it is right, of the wrong type, missed (the
negative relation was predicted) or spurious (the gold is the negative one).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...manifests.printable import in_markdown, markdown_table
from ...manifests.schemas import ERRORS
from ...manifests.tables import table_of
from .columns import rows_in_turn
from .entities import Entity, entities_of

__all__ = [
    "KINDS",
    "SHOWN",
    "Entity",
    "Pair",
    "error_report",
    "errors_markdown",
    "errors_of",
    "found_of",
    "paired",
]

CORRECT, TYPE, BOUNDARY, BOTH, MISSED, SPURIOUS = KINDS = (
    "correct",
    "type",
    "boundary",
    "type and boundary",
    "missed",
    "spurious",
)
"""What a pair is; those after the first are errors."""

# What of a pair counts as right under each scheme, and what counts half.
_SCHEMES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "strict": (frozenset({CORRECT}), frozenset()),
    "exact": (frozenset({CORRECT, TYPE}), frozenset()),
    "partial": (frozenset({CORRECT, TYPE}), frozenset({BOUNDARY, BOTH})),
    "type": (frozenset({CORRECT, BOUNDARY}), frozenset()),
}


SHOWN = 1000
"""Errors of each kind on a page for people."""

# Rows that are Python's objects at one time.
_AT_ONCE = 2**12


@dataclass(frozen=True)
class Pair:
    """An entity of the gold and the one that was predicted in its place; either may be absent."""

    gold: Entity | None
    predicted: Entity | None

    @property
    def kind(self) -> str:
        """Return one of KINDS."""
        if self.gold is None:
            return SPURIOUS
        if self.predicted is None:
            return MISSED
        same_type, same_words = self.gold[0] == self.predicted[0], self.gold[1:] == self.predicted[1:]
        if same_words:
            return CORRECT if same_type else TYPE
        return BOUNDARY if same_type else BOTH


def found_of(labels: Sequence[str], task: str, negative: str | None = None) -> list[Entity]:
    """Return what labels say is there. labels: BIO tags, or a list of one relation."""
    if task == "ner":
        return entities_of(labels)
    return [] if labels[0] == negative else [(labels[0], 0, 0)]


def paired(gold: Sequence[Entity], predicted: Sequence[Entity]) -> list[Pair]:
    """Return each entity in exactly one pair, in the order of the text."""
    near = sorted(
        (one != other, one[1:] != other[1:], one[0] != other[0], -shared, i, j)
        for i, one in enumerate(gold)
        for j, other in enumerate(predicted)
        if (shared := min(one[2], other[2]) - max(one[1], other[1]) + 1) > 0
    )
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for *_, i, j in near:
        if i not in partner and j not in taken:
            partner[i] = j
            taken.add(j)
    pairs = [Pair(one, predicted[partner[i]] if i in partner else None) for i, one in enumerate(gold)]
    pairs += [Pair(None, one) for j, one in enumerate(predicted) if j not in taken]
    return sorted(pairs, key=lambda pair: (pair.gold or pair.predicted or ("", 0, 0))[1:])


def error_report(predictions: pa.Table, task: str, negative: str | None = None) -> dict[str, Any]:
    """Return what was right and wrong in predictions (manifests.schemas.PREDICTIONS), as JSON values.

    Return {"kinds": how many pairs there are of each of KINDS, "schemes": precision, recall and F1 under
    each scheme, {} for relations, "confusion": {"types": names, "counts": rows of gold, columns of
    predictions}}. The last row of the confusion is what is spurious, and its last column what is missed.
    """
    kinds = dict.fromkeys(KINDS, 0)
    taken: Counter[tuple[str | None, str | None]] = Counter()
    for row in rows_in_turn(predictions, ["gold", "predicted"]):
        gold = found_of(row["gold"], task, negative)
        if row["gold"] == row["predicted"]:
            kinds[CORRECT] += len(gold)
            taken.update((name, name) for name, _, _ in gold)
            continue
        for pair in paired(gold, found_of(row["predicted"], task, negative)):
            kinds[pair.kind] += 1
            taken[pair.gold and pair.gold[0], pair.predicted and pair.predicted[0]] += 1
    types = sorted({name for pair in taken for name in pair if name is not None})
    place: dict[str | None, int] = {None: len(types), **{name: number for number, name in enumerate(types)}}
    counts = [[0] * (len(types) + 1) for _ in range(len(types) + 1)]
    for (one, other), count in taken.items():
        counts[place[one]][place[other]] = count
    schemes = _schemes(kinds) if task == "ner" else {}
    return {"kinds": kinds, "schemes": schemes, "confusion": {"types": types, "counts": counts}}


def _schemes(kinds: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Return precision, recall and F1 under each scheme; nothing predicted or to find scores 0."""
    gold, predicted = (sum(kinds.values()) - kinds[alone] for alone in (SPURIOUS, MISSED))
    found = {}
    for name, (right, half) in _SCHEMES.items():
        correct = sum(kinds[kind] for kind in right) + sum(kinds[kind] for kind in half) / 2
        found[name] = {
            "precision": correct / predicted if predicted else 0.0,
            "recall": correct / gold if gold else 0.0,
            "f1": 2 * correct / (gold + predicted) if gold + predicted else 0.0,
        }
    return found


def errors_of(
    predictions: pa.Table,
    task: str,
    negative: str | None = None,
    scores: Sequence[Mapping[Entity, float]] | None = None,
) -> pa.Table:
    """Return a row (manifests.schemas.ERRORS) for each error in predictions, in their order.

    scores: of each sample, the probability of what was found in it; None where it is not known.
    """
    parts: list[pa.Table] = []
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(rows_in_turn(predictions, ["id", "split", "tokens", "gold", "predicted"])):
        if row["gold"] != row["predicted"]:
            rows += _errors_in(row, task, negative, scores[number] if scores is not None else {})
        if len(rows) >= _AT_ONCE:
            parts.append(table_of(ERRORS, rows))
            rows = []
    return pa.concat_tables([*parts, table_of(ERRORS, rows)])


def _errors_in(
    row: Mapping[str, Any], task: str, negative: str | None, known: Mapping[Entity, float]
) -> Iterator[dict[str, Any]]:
    """Yield the errors in a row of predictions. known: the probability of what was found in it."""
    for pair in paired(*(found_of(row[which], task, negative) for which in ("gold", "predicted"))):
        if pair.kind == CORRECT:
            continue
        spans = {
            which: None if one is None or task != "ner" else [one[1], one[2] + 1]
            for which, one in (("gold", pair.gold), ("predicted", pair.predicted))
        }
        yield {
            "id": row["id"],
            "split": row["split"],
            "kind": pair.kind,
            "gold_type": pair.gold and pair.gold[0],
            "gold_words": spans["gold"],
            "predicted_type": pair.predicted and pair.predicted[0],
            "predicted_words": spans["predicted"],
            "probability": known.get(pair.predicted) if pair.predicted is not None else None,
            "tokens": row["tokens"],
        }


def errors_markdown(title: str, report: Mapping[str, Any], errors: pa.Table) -> str:
    """Return a page on the errors: counts, schemes, confusion, and SHOWN errors of each kind with samples."""
    counts = [[kind, str(count)] for kind, count in report["kinds"].items()]
    parts = [f"# {in_markdown(title)}", markdown_table(["what", "how many"], counts)]
    if report["schemes"]:
        rows = [
            [name, *(f"{row[score]:.4f}" for score in ("precision", "recall", "f1"))]
            for name, row in report["schemes"].items()
        ]
        parts.append(markdown_table(["scheme", "precision", "recall", "F1"], rows))
    types = report["confusion"]["types"]
    rows = [
        [name, *map(str, row)]
        for name, row in zip([*types, "spurious"], report["confusion"]["counts"], strict=True)
    ]
    parts += ["Rows are gold, columns predictions.", markdown_table(["", *types, "missed"], rows)]
    for kind in KINDS[1:]:
        places = pc.indices_nonzero(pc.equal(errors["kind"], kind))
        if not len(places):
            continue
        lines = [
            [row["id"], _said(row, "gold"), _said(row, "predicted"), _sure(row), " ".join(row["tokens"])]
            for row in errors.take(places[:SHOWN]).to_pylist()
        ]
        parts.append(f"## {kind}: {len(places)}")
        if len(places) > SHOWN:
            parts.append(f"The first {SHOWN} of them; the table beside this page has all.")
        parts.append(markdown_table(["sample", "gold", "predicted", "probability", "text"], lines))
    return "\n\n".join(parts) + "\n"


def _said(row: Mapping[str, Any], which: str) -> str:
    """Return a type, with the words that it was said of."""
    if row[f"{which}_type"] is None:
        return ""
    span = row[f"{which}_words"]
    words = "" if span is None else f": {' '.join(row['tokens'][slice(*span)])}"
    return f"{row[f'{which}_type']}{words}"


def _sure(row: Mapping[str, Any]) -> str:
    return "" if row["probability"] is None else f"{row['probability']:.3f}"
