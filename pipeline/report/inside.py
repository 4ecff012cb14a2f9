"""What a report shows of a model's inside: its gates over a split, and how its training went."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...manifests.errors import StageError
from ...manifests.run import RunFolder
from ...manifests.schemas import EXPLANATIONS, HISTORY
from ...manifests.tables import read_table
from ..run.trainings import folder_of, setting_of
from .data import Curve, Gates

__all__ = ["curves", "mean_gates", "view_names"]


def view_names(count: int, first: int = 0) -> tuple[str, ...]:
    """Return the names of `count` views from the number `first` on: 0 is the whole image, others objects."""
    return tuple(f"object {number}" if number else "whole image" for number in range(first, first + count))


def mean_gates(evaluation: Path) -> Gates | None:
    """Return the mean gates of the views that are there, by what an evaluation explained.

    evaluation: its file. Return None where its system has no gates, or nothing was explained.
    """
    name = evaluation.stem.removeprefix("evaluation-")
    try:
        columns = ["over", "views", "gates"]
        table = read_table(evaluation.with_name(f"explanation-{name}.parquet"), EXPLANATIONS, columns=columns)
    except StageError:
        return None
    rows = [row for row in table.to_pylist() if row["gates"] is not None]
    if not rows:
        return None
    gates = np.array([row["gates"] for row in rows])  # shape: (samples, L, V, c)
    there = np.array([row["views"] for row in rows], bool)  # shape: (samples, V)
    samples = there.sum(axis=0)
    sums = np.where(there[:, None, :, None], gates, 0.0).sum(axis=0)
    means = (sums / np.maximum(samples, 1)[None, :, None]).transpose(1, 0, 2)  # shape: (V, L, c)
    seen = [view for view in range(len(samples)) if samples[view]]
    names = view_names(len(samples), first=int(rows[0]["over"] == "objects"))
    return Gates(
        tuple(names[view] for view in seen),
        tuple(tuple(map(tuple, means[view].tolist())) for view in seen),
        tuple(int(samples[view]) for view in seen),
    )


def curves(run: RunFolder, metrics: Mapping[str, Any]) -> Iterator[Curve]:
    """Yield the curve of a training, or nothing where its history cannot be read."""
    try:
        table = read_table(folder_of(run, metrics) / "history.parquet", HISTORY)
    except StageError:
        return
    columns = (tuple(table.column(name).to_pylist()) for name in ("epoch", "loss", "valid_f1"))
    yield Curve(setting_of(metrics), metrics["seed"], metrics["best_epoch"], *columns)
