"""Scores of entity and relation extraction, as method papers report them.

Entities: micro precision, recall and F1 over exact (type, span) matches of IOB2 tags, as seqeval counts them.
Relations: micro scores with the negative relation left out of predicted and gold positives; accuracy includes
it, by scikit-learn.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from .entities import entities_of

__all__ = ["Scores", "score_entities", "score_relations"]

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
    # Of each type and each group: correct, predicted, gold.
    per_type: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    per_group: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for gold_tags, predicted_tags, names in zip(gold, predicted, groups or [()] * len(gold), strict=True):
        mentions, guesses = entities_of(gold_tags), entities_of(predicted_tags)
        for mention in mentions:
            per_type[mention[0]][2] += 1
        for guess in guesses:
            per_type[guess[0]][1] += 1
            per_type[guess[0]][0] += guess in mentions
        for name in names:
            per_group[name][2] += 1
        for guess in guesses if names else ():
            overlapped = [
                i for i, (_, start, end) in enumerate(mentions) if start <= guess[2] and guess[1] <= end
            ]
            if overlapped:
                count = per_group[names[overlapped[0]]]
                count[1] += 1
                count[0] += guess in mentions
    result = _scores(*(sum(count[place] for count in per_type.values()) for place in range(3)))
    result["per_type"] = {name: _scores(*count) for name, count in sorted(per_type.items())}
    result["per_group"] = {name: _scores(*count) for name, count in sorted(per_group.items())}
    return result


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
