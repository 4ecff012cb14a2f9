"""Scores as text tables."""

from collections.abc import Sequence
from typing import Any

from ..stages.scores import Scores

__all__ = ["score_table", "text_table"]


def text_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as their widest cell, the first to the left and the others to the right. None is shown as -."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))) for row in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def score_table(scores: Scores) -> str:
    """Precision, recall, F1 and support: overall, then per type, then per group."""
    named = [("overall", scores), *scores["per_type"].items(), *((f"group {name}", row) for name, row in scores["per_group"].items())]
    return text_table(
        ["", "precision", "recall", "F1", "gold"],
        [[name, row["precision"], row["recall"], row["f1"], row["support"]] for name, row in named],
    )
