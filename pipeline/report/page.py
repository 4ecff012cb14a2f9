"""The report as one HTML file: it needs no network and no script, and shows text of the data as it is."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ...manifests.printable import printable
from ...stages.evaluate.examined import IMAGE, LEVEL, Looked, Occluded
from ...stages.learning.errors import Entity
from . import drawing
from .data import CaseShown, Photo, Report, RunReport
from .inside import view_names

__all__ = ["page_of"]


def page_of(report: Report) -> str:
    """Return the page of a report."""
    return _environment().get_template("report.html").render(report=report)


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters.update(percent=_percent, points=_points, number=_number)
    made.globals.update(
        draw=drawing,
        headline=_headline,
        looked_at=_looked_at,
        part_name=_part_name,
        said=_said,
        view_names=view_names,
    )
    return made


def _shown(value: Any) -> Any:
    """Return a value as the page shows it: what could steer a browser or forge a line is escaped."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _percent(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def _points(value: float | None) -> str:
    """Return a difference in points, with a minus that is as wide as a plus."""
    if value is None:
        return "–"
    shown = f"{100 * value:+.2f}".replace("-", "−")
    return "0.00" if shown in ("+0.00", "−0.00") else shown


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,}"


def _looked_at(looked: Looked | None) -> tuple[list[float], list[float]]:
    """Return the share of the attention of each view, by its number, and of each cell of the whole image.

    It is the mean over the layers that look at the image at all; nothing where it is not known.
    """
    if looked is None:
        return [], []
    if looked.over == "cells":
        return [], _mean(looked.attention)
    views = [0.0] * looked.first + _mean(looked.attention)
    of_image = [layer[0] for layer in looked.cells] if looked.cells is not None and not looked.first else []
    return views, _mean(of_image)


def _mean(layers: Sequence[Sequence[float]]) -> list[float]:
    rows = [row for row in layers if any(row)]
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def _headline(run: RunReport) -> Iterator[str]:
    """Yield the sentences that say what came out."""
    row = next(row for row in run.rows if row.name == run.setting)
    found = row.scores["f1"]
    what = "entities" if run.task == "ner" else "relations"
    if found is not None:
        trainings = f", the mean of {found.count} trainings" if found.count > 1 else ""
        text = f"On the {run.split} split, {row.name} finds {what} with F1 {_percent(found.mean)}{trainings}"
        if row.difference is not None and run.against is not None:
            one = row.difference
            between = f"{_points(one['low'])} to {_points(one['high'])}"
            text += f": {_points(one['value'])} points from {run.against} (95% interval {between})"
        yield f"{text}."
    use = next((use for use in run.uses if use.name == row.name), None)
    if use is not None and use.groups and use.groups[0].shuffled is not None:
        whole = use.groups[0]
        yield (
            f"{use.title} scores {_percent(whole.as_is)} as it is, {_percent(whole.shuffled)} with the "
            f"images dealt out at random, and {_percent(whole.without)} without images."
        )


def _part_name(one: Occluded, picture: Photo | None) -> str:
    """Return what was taken away of an image."""
    if one.what == IMAGE:
        return "all of the image"
    if one.what == LEVEL:
        return f"level {one.number + 1} of the pyramid"
    if one.number == 0:
        return "the view of the whole image"
    boxes = picture.boxes if picture is not None else ()
    label = next((f" ({box.label})" for box in boxes if box.view == one.number), "")
    return f"object {one.number}{label}"


def _said(case: CaseShown, answers: Sequence[Entity], is_gold: bool) -> Markup:
    """Return a text with what was said of it marked; of a relation its name, and in the gold the text too."""
    if case.pair is not None:
        name = ", ".join(one[0] for one in answers) or "none"
        wrong = not is_gold and set(answers) != set(case.gold)
        shown = drawing.tag("mark", name, class_="wrong" if wrong else None)
        if not is_gold or case.tokens is None:
            return shown
        marks = ((span, which) for span, which in zip(case.pair, ("head", "tail"), strict=True))
        return (
            shown
            + Markup("<br>")
            + _marked(case.tokens, [(start, end - 1, which, None) for (start, end), which in marks])
        )
    if case.tokens is None:
        names = [f"{name} (words {first + 1} to {last + 1})" for name, first, last in answers]
        return drawing.joined([", ".join(names) or "nothing"])
    pieces = [
        (first, last, None if is_gold or (name, first, last) in case.gold else "wrong", name)
        for name, first, last in answers
    ]
    return _marked(case.tokens, pieces)


def _marked(tokens: Sequence[str], pieces: Iterable[tuple[int, int, str | None, str | None]]) -> Markup:
    """Return words with ranges of them marked: first and last word, class, and what is written behind."""
    parts: list[object] = []
    at = 0
    for first, last, kind, name in sorted(pieces, key=lambda piece: piece[:2]):
        if first < at:  # head and tail may overlap
            continue
        parts.append(" ".join([*tokens[at:first], ""]))
        behind = [] if name is None else [" ", drawing.tag("small", name)]
        parts += [drawing.tag("mark", " ".join(tokens[first : last + 1]), *behind, class_=kind), " "]
        at = last + 1
    parts.append(" ".join(tokens[at:]))
    return drawing.joined(parts)
