"""Scores as text tables."""

import json
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from ...manifests.errors import StageError
from ...manifests.run import RunFolder
from ...stages.learning.scores import Scores

__all__ = ["finished_trainings", "score_table", "seeds_table", "text_table"]


def text_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as their widest cell, the first to the left and the others to the right. None is shown as -."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def seeds_table(metrics: Sequence[Mapping[str, Any]]) -> str:
    """One row a system from the metrics.json of several trainings: the mean F1 over its seeds and the sample standard deviation."""
    systems: dict[str, list[Mapping[str, Any]]] = {}
    for one in metrics:
        systems.setdefault(one["system"], []).append(one)
    rows = []
    for system, trained in systems.items():
        row: list[Any] = [system, len(trained)]
        for split in ("valid", "test"):
            scores = [one[split]["f1"] for one in trained if one[split] is not None]
            row += [mean(scores) if scores else None, stdev(scores) if len(scores) > 1 else None]
        rows.append(row)
    return text_table(["system", "seeds", "valid F1", "deviation", "test F1", "deviation"], rows)


def finished_trainings(
    run: RunFolder, systems: Sequence[str] = (), seeds: Sequence[int] = ()
) -> list[dict[str, Any]]:
    """The metrics.json of every finished training, ordered by system and seed as asked for; none asked for: all, in alphabetical order.

    Raises StageError where there is none.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for path in sorted((run.path / "models").glob("*/seed-*/metrics.json")):
        one = json.loads(path.read_text(encoding="utf-8"))
        if run.record(f"train-{one['system']}-seed-{one['seed']}").is_file():
            found[one["system"], one["seed"]] = one
    wanted = [
        key for key in sorted(found) if (not systems or key[0] in systems) and (not seeds or key[1] in seeds)
    ]
    wanted.sort(key=lambda key: systems.index(key[0]) if systems else 0)
    if not wanted:
        raise StageError(
            f"{run.path} holds no finished training{' of these' if systems or seeds else ''}; run `hmnet-pipe train` first"
        )
    return [found[key] for key in wanted]


def score_table(scores: Scores) -> str:
    """Precision, recall, F1 and support: overall, then per type, then per group."""
    named = [
        ("overall", scores),
        *scores["per_type"].items(),
        *((f"group {name}", row) for name, row in scores["per_group"].items()),
    ]
    return text_table(
        ["", "precision", "recall", "F1", "gold"],
        [[name, row["precision"], row["recall"], row["f1"], row["support"]] for name, row in named],
    )
