"""Scores as text tables."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from ...manifests.printable import printable
from ...stages.learning.negative import NO_NEGATIVE
from ..run.trainings import Spread, settings_of

Scores = Mapping[str, Any]
"""As stages.learning.scores makes them; repeated here, since that module imports scikit-learn."""

__all__ = [
    "calibration_table",
    "demo_table",
    "errors_table",
    "grounding_table",
    "groups_table",
    "notes_on",
    "score_table",
    "scored_splits",
    "text_table",
    "trials_table",
]


_SCORES = ("precision", "recall", "f1")


def text_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return columns as wide as their widest cell, the first to the left, the others to the right.

    None is shown as -.
    """
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
    """Return a cell as it will be shown, so that columns are as wide as what they hold."""
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else printable(str(value))


def trials_table(
    metrics: Sequence[Mapping[str, Any]], differences: Mapping[str, Mapping[str, Any]] | None = None
) -> str:
    """Return one row for each system, and for each of its low-resource and other settings.

    metrics: the metrics.json of several trainings. A row has the mean F1 over the seeds and the sample
    standard deviation. differences: of some rows from another, as pipeline.run.trainings makes them.
    """
    rows = []
    for setting in settings_of(metrics):
        row: list[Any] = [setting.name, len(setting.trainings)]
        for split in ("valid", "test"):
            found = setting.spread(split)
            row += [None, None] if found is None else [found.mean, found.deviation]
        rows.append([*row, *_difference((differences or {}).get(setting.name))] if differences else row)
    head = ["system", "trainings", "valid F1", "deviation", "test F1", "deviation"]
    table = text_table([*head, *(_DIFFERENCE if differences else ())], rows)
    return _with_note(table, scored_splits(metrics))


def groups_table(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return one row for each system and setting: test F1 of all, and of each group of samples.

    metrics: the metrics.json of several trainings. A cell has the mean over the seeds and the sample standard
    deviation, in hundredths.
    """
    tests = [one["test"] for one in metrics if one["test"] is not None]
    groups = list(dict.fromkeys(name for one in tests for name in one.get("per_group", {})))
    rows = []
    for setting in settings_of(metrics):
        spreads = [setting.spread("test"), *(setting.spread("test", within=("per_group", n)) for n in groups)]
        rows.append([setting.name, len(setting.trainings), *map(_in_hundredths, spreads)])
    return text_table(["system", "trainings", "all", *groups], rows)


def _in_hundredths(spread: Spread | None) -> str | None:
    """Return mean and deviation, as in `93.1 ± 0.8`."""
    if spread is None:
        return None
    return f"{100 * spread.mean:.1f}" + (
        "" if spread.deviation is None else f" ± {100 * spread.deviation:.1f}"
    )


_DIFFERENCE = ("difference", "95% interval", "p", "p (Holm)")


def _difference(row: Mapping[str, Any] | None) -> list[Any]:
    """Return the cells of a difference."""
    if row is None:
        return [None] * len(_DIFFERENCE)
    return [f"{row['value']:+.4f}", f"{row['low']:+.4f} to {row['high']:+.4f}", row["p"], row["p_holm"]]


def scored_splits(metrics: Sequence[Mapping[str, Any]]) -> list[Scores]:
    """Return the scores of all splits of several trainings. metrics: their metrics.json."""
    return [one[split] for one in metrics for split in ("valid", "test") if one[split] is not None]


def notes_on(scores: Sequence[Scores]) -> list[str]:
    """Return what must be known to read scores: that relations were scored without a negative one."""
    return [NO_NEGATIVE] if any(one.get("negative", "") is None for one in scores) else []


def _with_note(table: str, scores: Sequence[Scores]) -> str:
    return "\n".join([table, *(f"note: {note}" for note in notes_on(scores))])


def demo_table(scores: Mapping[str, Mapping[str, Scores]]) -> str:
    """Return the test scores of the demonstration, one row for each task and system."""
    head = ["task  system", "F1 overall", "F1 visually decided", "F1 text-decided"]
    rows = [
        [
            f"{task:<4}  {system}",
            one["f1"],
            *(one["per_group"].get(group, {}).get("f1") for group in ("vision", "text")),
        ]
        for task, systems in scores.items()
        for system, one in systems.items()
    ]
    return text_table(head, rows)


def score_table(scores: Scores) -> str:
    """Return precision, recall, F1 and support: overall, then per type, then per group."""
    named = [
        ("overall", scores),
        *scores["per_type"].items(),
        *((f"group {name}", row) for name, row in scores["per_group"].items()),
    ]
    table = text_table(
        ["", "precision", "recall", "F1", "gold"],
        [[name, row["precision"], row["recall"], row["f1"], row["support"]] for name, row in named],
    )
    return _with_note(table, [scores])


def errors_table(report: Mapping[str, Any]) -> str:
    """Return what kinds of errors there are, and the scores under each scheme of stages.learning.errors."""
    kinds = text_table(["", "how many"], list(report["kinds"].items()))
    if not report["schemes"]:
        return kinds
    rows = [[name, *(row[score] for score in _SCORES)] for name, row in report["schemes"].items()]
    return f"{kinds}\n\n{text_table(['what counts', 'precision', 'recall', 'F1'], rows)}"


def grounding_table(report: Mapping[str, Any]) -> str:
    """Return how often a model looks at the right view of mentions, as stages.evaluate.grounding makes it."""
    named = [("overall", report), *report["per_type"].items()]
    columns = ("mentions", "accuracy", "ceiling", "detected", "chance")
    table = text_table(
        ["grounding", "mentions", "right view", "any view", "any object", "random view"],
        [[name, *(row[column] for column in columns)] for name, row in named],
    )
    first = report["whole_image"]
    said = [
        f"{100 * share:.1f}% of the mentions that are {where} the image"
        for where, share in (("in", first["in_image"]), ("not in", first["not_in_image"]))
        if share is not None
    ]
    lines = [table] + ([f"the whole image has the most attention of {' and of '.join(said)}"] if said else [])
    return "\n".join([*lines, f"mentions that are not in the image: {report['not_in_image']}"])


def calibration_table(report: Mapping[str, Any]) -> str:
    """Return a reliability table, as stages.learning.calibration makes it, and the errors below it.

    The right half is with the temperature, where there is one.
    """
    halves = [half for half in (report["as_it_is"], report["with_temperature"]) if half is not None]
    columns = ["found", "confidence", "right"]
    rows = []
    for bins in zip(*(half["bins"] for half in halves), strict=True):
        cells = [[one["count"], one["confidence"], one["accuracy"]] for one in bins]
        rows.append([f"{bins[0]['from']:.1f} to {bins[0]['to']:.1f}", *chain.from_iterable(cells)])
    lines = [text_table(["probability", *columns * len(halves)], rows)]
    if (error := halves[0]["error"]) is None:
        return f"{lines[0]}\nnothing was found: there is no probability to judge"
    lines.append(f"expected calibration error: {error:.4f}")
    if report["temperature"] is not None:
        what = f"temperature {report['temperature']:.3f}, fitted on {report['fitted_on']}"
        lines.append(f"with {what} (right half): {halves[1]['error']:.4f}")
    return "\n".join(lines)
