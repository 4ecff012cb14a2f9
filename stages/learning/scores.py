"""Scores of entity and relation extraction, as method papers report them.

Entities: micro precision, recall and F1 over exact (type, span) matches of IOB2 tags, by seqeval. Relations:
micro scores with the negative relation left out of predicted and gold positives; accuracy includes it, by
scikit-learn.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from seqeval.metrics import classification_report
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

__all__ = ["Scores", "score_entities", "score_relations"]

_NOTHING = {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 0}

Scores = dict[str, Any]
"""{"precision", "recall", "f1", "support", "per_type": {type: ...}, "per_group": {group: ...}}.

Relations have "accuracy" too, and "negative": the relation that counts as nothing to find, or None.
"""


def _scores(correct: int, predicted: int, gold: int) -> Scores:
    """Return scores from counts; nothing predicted or to find scores 0, as in seqeval and scikit-learn."""
    precision = correct / predicted if predicted else 0.0
    recall = correct / gold if gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "support": gold}


def score_entities(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    groups: Sequence[Sequence[str]] | None = None,
) -> Scores:
    """Return entity scores of tag sequences, equally long pairwise.

    `groups` names each gold mention's group, in the order of the text.

    A predicted mention belongs to the group of the gold mention that it overlaps first; one that overlaps
    none is an error of the overall score and of no group.
    """
    empty = all(tag == "O" for tags in (*gold, *predicted) for tag in tags)
    # seqeval averages an empty report to NaN, and warns.
    report = (
        {"micro avg": _NOTHING}
        if empty
        else classification_report(gold, predicted, output_dict=True, zero_division=0)
    )
    result = _from_report(report["micro avg"])
    result["per_type"] = {
        name: _from_report(row) for name, row in sorted(report.items()) if not name.endswith(" avg")
    }
    counts: dict[str, list[int]] = {}  # group: correct, predicted, gold
    for gold_tags, predicted_tags, names in zip(gold, predicted, groups or [()] * len(gold), strict=True):
        if not names:
            continue
        mentions = get_entities(list(gold_tags))
        for name in names:
            counts.setdefault(name, [0, 0, 0])[2] += 1
        for mention in get_entities(list(predicted_tags)):
            overlapped = [
                i for i, (_, start, end) in enumerate(mentions) if start <= mention[2] and mention[1] <= end
            ]
            if overlapped:
                count = counts[names[overlapped[0]]]
                count[1] += 1
                count[0] += mention in mentions
    result["per_group"] = {name: _scores(*count) for name, count in sorted(counts.items())}
    return result


def _from_report(row: Mapping[str, float]) -> Scores:
    return {
        "precision": float(row["precision"]),
        "recall": float(row["recall"]),
        "f1": float(row["f1-score"]),
        "support": int(row["support"]),
    }


def score_relations(
    gold: Sequence[str],
    predicted: Sequence[str],
    groups: Sequence[Sequence[str]] | None = None,
    *,
    negative: str | None,
) -> Scores:
    """Return relation scores.

    groups: the name of each sample's group, in a list that may be empty. negative: the relation that counts
    as nothing to find; None: every relation counts.
    """
    result = _relation_scores(gold, predicted, negative)
    positives = sorted({name for name in (*gold, *predicted) if name != negative})
    if positives:
        rows = precision_recall_fscore_support(gold, predicted, labels=positives, zero_division=0)
        result["per_type"] = {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, p, r, f, s in zip(positives, *rows, strict=True)
        }
    else:
        result["per_type"] = {}
    names = np.array([group[0] if group else "" for group in groups or [()] * len(gold)])
    truths, guesses = np.array(gold), np.array(predicted)
    result["per_group"] = {
        str(name): _relation_scores(truths[names == name].tolist(), guesses[names == name].tolist(), negative)
        for name in sorted(set(names) - {""})
    }
    result["negative"] = negative
    return result


def _relation_scores(gold: Sequence[str], predicted: Sequence[str], negative: str | None) -> Scores:
    pairs = list(zip(gold, predicted, strict=True))
    correct = sum(truth == guess != negative for truth, guess in pairs)
    result = _scores(
        correct,
        sum(guess != negative for _, guess in pairs),
        sum(truth != negative for truth, _ in pairs),
    )
    result["accuracy"] = float(accuracy_score(list(gold), list(predicted))) if pairs else 0.0
    return result
