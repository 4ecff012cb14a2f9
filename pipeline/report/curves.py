"""The figure of a grid: F1 of each system over the number of samples, or another quantity of its data."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ...manifests.errors import InputError, StageError
from ...manifests.files import atomic_path, make_folder
from ...manifests.printable import printable
from ..experiment.results import Result
from .style import COLUMNS, LINES, STYLE, UNDATED

__all__ = ["Curve", "Panel", "panels_of", "write_figure"]

_LEVEL = 0.95


@dataclass(frozen=True)
class Curve:
    """The line of one system: for each x the mean F1 in percent, and half the width of its 95% interval.

    A single training has no interval: 0.
    """

    name: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    half: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """The curves that share axes."""

    title: str
    label: str
    curves: tuple[Curve, ...]


def panels_of(results: Sequence[Result], group: str = "") -> list[Panel]:
    """Return what a figure shows: a panel for each data and kind of draw, a curve for each system.

    The x of a row is the `x` of its data where the grid gives one, and otherwise the number or share of its
    samples. Rows on all samples are left out beside rows that draw. group: the F1 of one group of mentions.
    """
    points: dict[tuple[str, str], dict[str, dict[float, list[float]]]] = {}
    for one in results:
        scores = [
            100 * (found["f1"] if not group else found["per_group"].get(group, {}).get("f1", 0.0))
            for metrics in one.metrics
            if (found := metrics["test"]) is not None
        ]
        if not scores or (place := _place(one)) is None:
            continue
        title, label, x = place
        points.setdefault((title, label), {}).setdefault(one.name, {}).setdefault(x, []).extend(scores)
    return [
        Panel(title, label, tuple(_curve(name, at) for name, at in curves.items()))
        for (title, label), curves in points.items()
    ]


def _place(one: Result) -> tuple[str, str, float] | None:
    """Return the panel of a row, its label and the place on it, or None for a row that has none."""
    if one.x is not None:
        return one.table, one.x_label, one.x
    natural = ", natural share of nothing" if one.draw.natural else ""
    if one.draw.shots:
        return f"{one.data}{natural}", "samples of each class", one.draw.shots
    if one.draw.percent:
        return one.data, "share of the samples, %", one.draw.percent
    return None


def _curve(name: str, points: dict[float, list[float]]) -> Curve:
    x = tuple(sorted(points))
    return Curve(name, x, tuple(mean(points[at]) for at in x), tuple(_half(points[at]) for at in x))


def _half(values: Sequence[float]) -> float:
    """Return half the width of the interval of a mean, by Student's distribution."""
    if len(values) < 2:
        return 0.0
    from scipy.stats import t

    quantile = float(t.ppf((1 + _LEVEL) / 2, len(values) - 1))
    return quantile * stdev(values) / sqrt(len(values))


def write_figure(panels: Sequence[Panel], path: Path) -> None:
    """Draw panels, two side by side, into an SVG or PDF. The same panels give the same bytes.

    Raises InputError where there is nothing to draw, and StageError where matplotlib is not installed.
    """
    if (form := path.suffix[1:]) not in UNDATED:
        raise InputError(f"--output {path} must end in .{' or .'.join(UNDATED)}")
    if not panels:
        raise InputError(
            "there is nothing to draw: no finished training draws samples (`shots`, `percent`) or is on data "
            "with an `x`"
        )
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise StageError("figures need a package; run `pip install 'hmnet-pipe[figures]'`") from error
    style: Any = STYLE
    with mpl.rc_context(style):
        rows = -(-len(panels) // 2)
        figure = Figure(figsize=(COLUMNS["two"], 2.4 * rows), layout="constrained")
        places = list(figure.subplots(rows, 2, squeeze=False).flat)
        for axes, panel in zip(places, panels, strict=False):
            _draw(axes, panel)
        for axes in places[len(panels) :]:
            axes.set_axis_off()
        make_folder(path.parent)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=form, metadata=UNDATED[form])


def _draw(axes: Any, panel: Panel) -> None:
    for curve, line in zip(panel.curves, cycle(LINES), strict=False):
        look = {"label": printable(curve.name), "capsize": 2, "lw": 1, "ms": 4, **line}
        axes.errorbar(curve.x, curve.mean, yerr=curve.half, **look)
    axes.set(title=printable(panel.title), xlabel=printable(panel.label), ylabel="test F1 (%)")
    axes.set_xticks(sorted({x for curve in panel.curves for x in curve.x}))
    axes.grid(axis="y")
    axes.legend()
