"""The table of a grid for people and papers, and what `experiment status` says."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ...manifests.printable import in_markdown, markdown_table, printable
from ..experiment.cells import Experiment, Look
from ..experiment.results import Result, Spread
from ..experiment.run import in_words, seconds_left
from .formats import in_latex
from .text import text_table

__all__ = ["FORMATS", "cells_lines", "results_as", "status_lines", "status_of"]

_SCORES = {"precision": "P", "recall": "R", "f1": "F1"}


def results_as(name: str, results: Sequence[Result], groups: bool = False) -> str:
    """Return the table of a grid in one of FORMATS. groups: with the test F1 of each group of mentions."""
    return FORMATS[name](results, groups)


def _table(results: Sequence[Result], groups: bool) -> tuple[list[str], list[list[str]]]:
    """Return head and rows: scores of runs in percent; the published F1 stands apart, with its source."""
    columns: dict[str, list[str]] = {}

    def column(head: str, cell: Callable[[Result], str | None], always: bool = True) -> None:
        cells = [cell(one) for one in results]
        if always or any(cells):
            columns[head] = [each or "-" for each in cells]

    if len({one.table for one in results}) > 1:
        column("table", lambda one: one.table)
    column("data", lambda one: one.data)
    column("system", lambda one: one.name)
    if any(str(one.draw) for one in results):
        column("samples", lambda one: str(one.draw) or "all")
    column("chosen", _chosen, always=False)
    column("trainings", lambda one: f"{one.done} of {one.wanted}")
    column("valid F1", lambda one: _percent(one.spread("valid")))
    for score, shown in _SCORES.items():
        column(f"test {shown}", partial(_score, score=score))
    column("range of F1", _range, always=False)
    for name in _groups(results) if groups else ():
        column(f"F1 of {name}", partial(_of_group, name=name))
    for name in dict.fromkeys(name for one in results for name in one.differences):
        column(f"less {name} (95% interval)", partial(_difference, name=name))
        column(f"p (Holm), {name}", partial(_corrected, name=name))
    column("published F1", lambda one: f"{one.published.f1:.2f}" if one.published else None, always=False)
    column("source", lambda one: one.published.source if one.published else None, always=False)
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def _chosen(one: Result) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in one.chosen.items())


def _percent(found: Spread | None) -> str | None:
    if found is None:
        return None
    deviation = "" if found.deviation is None else f" ± {100 * found.deviation:.2f}"
    return f"{100 * found.mean:.2f}{deviation}"


def _range(one: Result) -> str | None:
    found = one.spread("test")
    if found is None or found.deviation is None:
        return None
    return f"{100 * found.least:.2f} to {100 * found.most:.2f}"


def _difference(one: Result, name: str) -> str | None:
    if (found := one.differences.get(name)) is None:
        return None
    value, low, high = (100 * part for part in (found.value, found.low, found.high))
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def _corrected(one: Result, name: str) -> str | None:
    return f"{one.corrected[name]:.4f}" if name in one.corrected else None


def _score(one: Result, score: str) -> str | None:
    return _percent(one.spread("test", score))


def _of_group(one: Result, name: str) -> str | None:
    return _percent(one.spread("test", group=name))


def _groups(results: Sequence[Result]) -> list[str]:
    return sorted(
        {
            name
            for one in results
            for metrics in one.metrics
            for name in (metrics["test"] or {}).get("per_group", {})
        }
    )


def _notes(results: Sequence[Result]) -> list[str]:
    """Return what must be known to read the table: what is missing and why, and what is odd."""
    missing = [f"not trained: {title}: {reason}" for one in results for title, reason in one.missing.items()]
    odd = {one.system: one.published.note for one in results if one.published and one.published.note}
    notes = [f"published scores of {system}: {note}" for system, note in odd.items()]
    scores = "scores of runs in percent: mean and sample deviation over the trainings"
    return [*missing, *notes, *([scores] if any(one.done for one in results) else [])]


def _text(results: Sequence[Result], groups: bool) -> str:
    head, rows = _table(results, groups)
    return "\n".join([text_table(head, rows), *(f"note: {note}" for note in _notes(results))])


def _markdown(results: Sequence[Result], groups: bool) -> str:
    head, rows = _table(results, groups)
    return "\n".join(
        [markdown_table(head, rows), *(f"\nNote: {in_markdown(note)}." for note in _notes(results))]
    )


def _latex(results: Sequence[Result], groups: bool) -> str:
    r"""Return a `tabular` for the package booktabs."""
    head, rows = _table(results, groups)

    def line(cells: Sequence[str]) -> str:
        shown = (in_latex(cell).replace(" ± ", r" $\pm$ ") for cell in cells)
        return f"{' & '.join(shown)} {chr(92) * 2}"

    lines = [
        "% needs \\usepackage{booktabs}",
        rf"\begin{{tabular}}{{{'l' * len(head)}}}",
        r"\toprule",
        line(head),
        r"\midrule",
        *map(line, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join([*lines, *(f"% {printable(note)}" for note in _notes(results))])


def _csv(results: Sequence[Result], groups: bool) -> str:
    """Return a row for each training, with all digits."""
    rows: list[dict[str, Any]] = []
    names = _groups(results) if groups else []
    for one in results:
        for metrics in one.metrics:
            scores = {
                f"{split}_{score}": (metrics[split] or {}).get(score)
                for split in ("valid", "test")
                for score in _SCORES
            }
            of_groups = {
                f"test_f1_of_{name}": ((metrics["test"] or {}).get("per_group", {}).get(name) or {}).get("f1")
                for name in names
            }
            named = {"table": one.table, "data": one.data, "system": one.name, "samples": str(one.draw)}
            seeds = {"seed": metrics["seed"], "subset_seed": metrics.get("subset_seed")}
            rows.append({**named, **seeds, "recipe": metrics.get("recipe"), **scores, **of_groups})
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else ["data"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _shown(value) for name, value in row.items()} for row in rows)
    return file.getvalue().removesuffix("\n")


def _shown(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _json(results: Sequence[Result], groups: bool) -> str:
    return json.dumps([one.to_json() for one in results], indent=2)


FORMATS: dict[str, Callable[[Sequence[Result], bool], str]] = {
    "text": _text,
    "markdown": _markdown,
    "latex": _latex,
    "csv": _csv,
    "json": _json,
}
"""How the table of a grid can be written."""


def cells_lines(experiment: Experiment) -> list[str]:
    """Return a line for each training of a grid with its state, and what waits for a choice."""
    cells = [f"{_state(experiment.look(cell)):<24}  {cell.title}" for cell in experiment.cells()]
    waiting = [
        f"{'waits':<24}  {row.title}: {count} more, for the trainings that decide how they are made"
        for row, count in experiment.waiting().items()
    ]
    return [*cells, *waiting]


def _state(look: Look) -> str:
    if look.metrics is not None and look.metrics["test"] is not None:
        return f"done, test F1 {look.metrics['test']['f1']:.4f}"
    if look.progress is not None:
        return f"{look.progress.done} of {look.progress.total} updates"
    return look.state


def status_of(experiment: Experiment, jobs: int) -> dict[str, Any]:
    """Return how far a grid has come, for machines."""
    looks = {cell: experiment.look(cell) for cell in experiment.cells()}
    states = [look.state for look in looks.values()]
    return {
        "grid": experiment.grid.name,
        "trainings": len(states) + sum(experiment.waiting().values()),
        **{state: states.count(state) for state in ("done", "begun", "to do", "failed")},
        "waits": sum(experiment.waiting().values()),
        "seconds_left": seconds_left(experiment, jobs),
        "reasons": {cell.title: look.reason for cell, look in looks.items() if look.state == "failed"},
    }


def status_lines(found: Mapping[str, Any], jobs: int) -> list[str]:
    """Return the same for people, as `status_of` makes it."""
    counts = [
        f"{found[state]} {state}" for state in ("done", "begun", "to do", "failed", "waits") if found[state]
    ]
    line = f"{found['grid']}: {found['trainings']} trainings: {', '.join(counts) or 'none'}"
    left = found["seconds_left"]
    if left:
        line += f"; about {in_words(left)} left"
        line += f" with {jobs} at once" if jobs > 1 else ""
    elif left is None and found["done"] < found["trainings"]:
        line += "; the first finished training gives an estimate of the time"
    return [*(f"failed  {title}: {reason}" for title, reason in found["reasons"].items()), line]
