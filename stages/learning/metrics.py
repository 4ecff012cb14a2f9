"""The metrics.json of a trained model, as `fit` writes it. Importing this needs no torch."""

import json
import math
from pathlib import Path
from typing import Any

from ...manifests.errors import StageError
from ...manifests.files import read_text, reason_of

__all__ = ["read_metrics"]

_SCORES = ("f1", "precision", "recall")


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return the metrics.json of the model in `folder`.

    Raises StageError where it is not there, or not what a training writes.
    """
    path = folder / "metrics.json"
    try:
        metrics: dict[str, Any] = json.loads(read_text(path))
        _check(metrics)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = reason_of(error)
        raise StageError(
            f"{path} cannot be read as the scores of a training ({reason}); "
            "delete it and run `hmnet-pipe train` with this system and seed again"
        ) from error
    return metrics


def _check(metrics: Any) -> None:
    """Raise TypeError, ValueError or KeyError where this is not what `fit` writes into metrics.json."""
    if not isinstance(metrics, dict):
        raise TypeError("it is no table")
    if not isinstance(metrics["system"], str):
        raise TypeError("its system is no text")
    qualifiers = metrics.get("qualifiers", [])
    if not isinstance(qualifiers, list) or not all(isinstance(each, str) for each in qualifiers):
        raise TypeError("its qualifiers are no texts")
    if type(metrics["seed"]) is not int or type(metrics["best_epoch"]) is not int:
        raise TypeError("its seed or best_epoch is no whole number")
    for split in ("valid", "test"):
        scores = metrics[split]
        if scores is None:
            continue
        if not isinstance(scores, dict):
            raise TypeError(f"its {split} scores are no table")
        if not all(type(scores[name]) in (int, float) and math.isfinite(scores[name]) for name in _SCORES):
            raise ValueError(f"its {split} scores are no numbers")
