"""The table of trainings for a paper, a page or another program: Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...manifests.printable import in_markdown, printable
from ..run.trainings import Setting, Spread, settings_of
from .text import notes_on, scored_splits, trials_table

__all__ = ["TABLE_FORMATS", "in_latex", "trials_as"]

Differences = Mapping[str, Mapping[str, Any]]

_SCORES = ("precision", "recall", "f1")
_SPLITS = ("valid", "test")
_SHOWN = {"precision": "P", "recall": "R", "f1": "F1"}

# What LaTeX reads as more than itself, and how it is written instead.
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{letter: f"{{{letter}}}" for letter in "[]"},  # after \\ they would be an argument
}


def trials_as(name: str, metrics: Sequence[Mapping[str, Any]], differences: Differences | None = None) -> str:
    """Return the table of trainings in one of TABLE_FORMATS.

    metrics: the metrics.json of several trainings. differences: of some rows from another, as
    pipeline.run.trainings makes them.
    """
    return _FORMATS[name](metrics, differences)


def in_latex(text: str) -> str:
    """Return `text` as LaTeX that prints it as it is."""
    return re.sub(r"[\\~^&%$#_{}\[\]]", lambda found: _LATEX[found[0]], printable(text))


def _paper_rows(
    settings: Sequence[Setting],
    differences: Differences | None,
    cell: Callable[[Spread | None, bool], str],
    name: Callable[[str], str],
    interval: Callable[[str], str],
) -> list[list[str]]:
    """Return the rows of a paper's table: percent with two decimals, and the best of a column in bold.

    cell: shows a score, and whether it is the best. name: shows text of the data. interval: shows numbers.
    """
    columns = [[setting.spread("test", score) for setting in settings] for score in _SCORES]
    best = [
        max((round(one.mean, 4) for one in column if one is not None), default=None) for column in columns
    ]
    rows = []
    for number, setting in enumerate(settings):
        row = [name(setting.name), str(len(setting.trainings))]
        for column, top in zip(columns, best, strict=True):
            one = column[number]
            row.append(cell(one, len(settings) > 1 and one is not None and round(one.mean, 4) == top))
        if differences:
            found = differences.get(setting.name)
            shown = ["-", "-"] if found is None else [_in_words(found), f"{found['p_holm']:.4f}"]
            row += map(interval, shown)
        rows.append(row)
    return rows


def _in_words(found: Mapping[str, Any]) -> str:
    """Return a difference with its interval, in points."""
    value, low, high = (100 * found[name] for name in ("value", "low", "high"))
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def _paper_head(differences: Differences | None) -> list[str]:
    scores = ["system", "trainings", *_SHOWN.values()]
    return [*scores, "difference (95% interval)", "p (Holm)"] if differences else scores


def _markdown(metrics: Sequence[Mapping[str, Any]], differences: Differences | None) -> str:
    def cell(one: Spread | None, best: bool) -> str:
        if one is None:
            return "-"
        deviation = "" if one.deviation is None else f" ± {100 * one.deviation:.2f}"
        value = f"{100 * one.mean:.2f}"
        return (f"**{value}**" if best else value) + deviation

    head = _paper_head(differences)
    rows = _paper_rows(settings_of(metrics), differences, cell, in_markdown, str)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([table, *(f"Note: {in_markdown(note)}." for note in notes_on(scored_splits(metrics)))])


def _latex(metrics: Sequence[Mapping[str, Any]], differences: Differences | None) -> str:
    r"""Return a `tabular` for the package booktabs, with deviations as subscripts."""

    def cell(one: Spread | None, best: bool) -> str:
        if one is None:
            return "--"
        deviation = "" if one.deviation is None else rf"_{{\pm {100 * one.deviation:.2f}}}"
        value = f"{100 * one.mean:.2f}"
        shown = rf"\mathbf{{{value}}}" if best else value
        return f"${shown}{deviation}$"

    def numbers(text: str) -> str:
        return text.replace("-", "$-$")

    head = _paper_head(differences)
    rows = _paper_rows(settings_of(metrics), differences, cell, in_latex, numbers)
    lines = [
        "% needs \\usepackage{booktabs}; scores in percent, mean and sample deviation over the trainings",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        _line(map(in_latex, head)),
        r"\midrule",
        *map(_line, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join([*lines, *(f"% {printable(note)}" for note in notes_on(scored_splits(metrics)))])


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _csv(metrics: Sequence[Mapping[str, Any]], differences: Differences | None) -> str:
    """Return a row for each setting, with all digits."""
    rows = []
    for setting in settings_of(metrics):
        row: dict[str, Any] = {"system": printable(setting.name), "trainings": len(setting.trainings)}
        for split in _SPLITS:
            for score in _SCORES:
                found = setting.spread(split, score)
                row[f"{split}_{score}"] = found and found.mean
                row[f"{split}_{score}_deviation"] = found and found.deviation
        if differences:
            own = differences.get(setting.name, {})
            row |= {f"difference_{key}": own.get(key) for key in ("value", "low", "high", "p", "p_holm")}
        rows.append(row)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().removesuffix("\n")


def _json(metrics: Sequence[Mapping[str, Any]], differences: Differences | None) -> str:
    """Return every training with all that its metrics.json holds."""
    found: Any = metrics if differences is None else {"trainings": metrics, "differences": differences}
    return json.dumps(found, indent=2)


_FORMATS: dict[str, Callable[[Sequence[Mapping[str, Any]], Differences | None], str]] = {
    "text": trials_table,
    "markdown": _markdown,
    "latex": _latex,
    "csv": _csv,
    "json": _json,
}
TABLE_FORMATS = tuple(_FORMATS)
"""How the table of trainings can be written."""
