"""The figures of a report as files for a paper: SVG and PDF, as wide as one column or two.

Fonts are embedded. Colours differ in lightness too, so that they stay apart in grey and for colour-blind
readers, and shapes and labels say the same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from ...manifests.errors import StageError
from ...manifests.files import atomic_path, make_folder
from ...manifests.printable import printable
from .data import Curve, Report, RunReport
from .style import COLUMNS, FIRST, GREY, SECOND, STYLE, UNDATED

__all__ = ["write_figures"]


def write_figures(report: Report, folder: Path) -> list[Path]:
    """Write every figure of a report into a folder, and return the files.

    Raises StageError where matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise StageError(
            "--figures needs a package of its own; run `pip install 'hmnet-pipe[figures]'`"
        ) from error
    make_folder(folder)
    files = []
    style: Any = STYLE
    with mpl.rc_context(style):
        for number, run in enumerate(report.runs, start=1):
            prefix = f"run-{number}-" if len(report.runs) > 1 else ""
            for name, height, draw in _figures(run):
                for columns, width in COLUMNS.items():
                    figure = Figure(figsize=(width, height), layout="constrained")
                    draw(figure)
                    for form in ("svg", "pdf"):
                        path = folder / f"{prefix}{name}-{columns}.{form}"
                        # No date: the same figure is the same file.
                        with atomic_path(path) as temporary:
                            figure.savefig(temporary, format=form, metadata=UNDATED[form])
                        files.append(path)
    return files


def _figures(run: RunReport) -> Iterator[tuple[str, float, Callable[[Any], None]]]:
    """Yield the name, the height in inches and the drawing of each figure of a run."""
    scored = [row for row in run.rows if row.each]
    if scored:
        names, each = [row.name for row in scored], [row.each for row in scored]
        yield "scores", 0.5 + 0.22 * len(names), partial(_scores, names=names, each=each)
    for number, use in enumerate(one for one in run.uses if one.is_visual):
        if use.groups[0].shuffled is not None:
            yield (
                f"images-{number + 1}",
                0.75 + 0.22 * len(use.groups),
                partial(_use, use=use),
            )
    if run.errors is not None and (types := run.errors.report["confusion"]["types"]):
        counts = run.errors.report["confusion"]["counts"]
        side = min(8.0, 0.9 + 0.26 * len(types))
        yield "confusion", side, partial(_confusion, types=types, counts=counts)
    if run.gates is not None:
        gates = run.gates
        yield (
            "gates",
            0.6 + 0.14 * len(gates.values[0]),
            partial(_gates, views=gates.views, values=gates.values),
        )
    for number, (_, group) in enumerate(groupby(run.curves, key=lambda curve: curve.name)):
        some = list(group)
        yield f"training-{number + 1}", 1.6, partial(_curves, curves=some)
    if run.calibrated is not None and run.calibrated.report["as_it_is"]["error"] is not None:
        half = run.calibrated.report["as_it_is"]
        yield "calibration", 2.4, partial(_calibration, half=half)
    if run.counts:
        yield "counts", 0.6 + 0.26 * len(run.counts), partial(_counts, counts=run.counts)
    for name, values in (("lengths", run.data.lengths), ("labels", dict(run.data.labels))):
        if values:
            shown = {printable(str(key)): value for key, value in list(values.items())[:12]}
            what = "words of a mention" if name == "lengths" else "detected label"
            yield (
                name,
                0.5 + 0.18 * len(shown),
                partial(_bars, values=shown, what=what),
            )


def _rows(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [printable(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _scores(figure: Any, names: Sequence[str], each: Sequence[Sequence[float]]) -> None:
    axes = figure.subplots()
    for place, values in enumerate(each):
        axes.plot(
            [100 * value for value in values],
            [place] * len(values),
            "o",
            mfc="none",
            mec=GREY,
            ms=4,
            mew=0.8,
        )
        axes.plot(100 * sum(values) / len(values), place, "o", color=FIRST, ms=5)
    _rows(axes, names)
    axes.set_xlabel("F1")


def _use(figure: Any, use: Any) -> None:
    axes = figure.subplots()
    marks = (
        ("as_is", "o", FIRST, FIRST),
        ("shuffled", "s", "none", SECOND),
        ("without", "D", SECOND, SECOND),
    )
    for place, group in enumerate(use.groups):
        values = [100 * value for name, *_ in marks if (value := getattr(group, name)) is not None]
        axes.plot([min(values), max(values)], [place, place], color=GREY, lw=0.8, zorder=1)
    for name, mark, fill, edge in marks:
        known = [
            (100 * value, at)
            for at, group in enumerate(use.groups)
            if (value := getattr(group, name)) is not None
        ]
        label = {"as_is": "as it is", "shuffled": "images shuffled", "without": "without images"}[name]
        axes.plot(*zip(*known, strict=True), mark, mfc=fill, mec=edge, ms=4.5, mew=1, ls="none", label=label)
    _rows(axes, [group.group for group in use.groups])
    axes.set_xlim(-3, 103)
    axes.set_xlabel("F1")
    figure.legend(loc="outside upper center", ncols=3, handletextpad=0.1, columnspacing=0.8, fontsize=7)


def _confusion(figure: Any, types: Sequence[str], counts: Sequence[Sequence[int]]) -> None:
    axes = figure.subplots()
    shares = [[count / (sum(row) or 1) for count in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=2, aspect="auto")
    for at, row in enumerate(counts):
        for column, count in enumerate(row):
            if at < len(types) or column < len(types):
                axes.text(column, at, count, ha="center", va="center", fontsize=7)
    names = [printable(name) for name in types]
    axes.set_xticks(
        range(len(types) + 1),
        [*names, "missed"],
        rotation=40 if len(types) > 5 else 0,
        ha="right" if len(types) > 5 else "center",
    )
    axes.set_yticks(range(len(types) + 1), [*names, "spurious"])
    axes.set_ylabel("gold")
    axes.set_xlabel("predicted")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _gates(figure: Any, views: Sequence[str], values: Sequence[Sequence[Sequence[float]]]) -> None:
    grid = figure.subplots(1, len(views), sharey=True, squeeze=False)[0]
    most = max(weight for view in values for row in view for weight in row)
    for axes, name, rows in zip(grid, views, values, strict=True):
        image = axes.imshow(rows, cmap="Blues", vmin=0, vmax=most, aspect="auto")
        axes.set_title(name.removeprefix("whole "), fontsize=7)
        axes.set_xticks(range(len(rows[0])), range(1, len(rows[0]) + 1))
        axes.tick_params(length=0)
    grid[0].set_yticks(range(len(values[0])), range(1, len(values[0]) + 1))
    grid[0].set_ylabel("layer")
    figure.supxlabel("level", fontsize=7.5)
    figure.colorbar(image, ax=list(grid), shrink=0.9, aspect=14)


def _curves(figure: Any, curves: Sequence[Curve]) -> None:
    left, right = figure.subplots(1, 2)
    for curve in curves:
        left.plot(
            curve.epochs,
            [float("nan") if one is None else one for one in curve.loss],
            color=FIRST,
            lw=1,
            alpha=0.8,
        )
        known = [
            (epoch, 100 * one)
            for epoch, one in zip(curve.epochs, curve.valid_f1, strict=True)
            if one is not None
        ]
        if known:
            right.plot(*zip(*known, strict=True), color=FIRST, lw=1, alpha=0.8)
            right.plot(
                *zip(*[one for one in known if one[0] == curve.best_epoch], strict=True),
                "o",
                color=FIRST,
                ms=3.5,
            )
    for axes, name in ((left, "loss"), (right, "validation F1")):
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.grid(axis="y")
        axes.locator_params(axis="x", integer=True, nbins=6)
    left.set_ylim(bottom=0)


def _calibration(figure: Any, half: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    bins = [one for one in half["bins"] if one["count"]]
    axes.plot([0, 100], [0, 100], "--", color=GREY, lw=0.8)
    axes.bar(
        [100 * one["from"] for one in bins],
        [100 * one["accuracy"] for one in bins],
        [100 * (one["to"] - one["from"]) - 1 for one in bins],
        align="edge",
        color=FIRST,
        alpha=0.35,
    )
    axes.plot(
        [100 * one["confidence"] for one in bins],
        [100 * one["accuracy"] for one in bins],
        "o",
        color=FIRST,
        ms=4,
    )
    axes.set_xlabel("probability")
    axes.set_ylabel("right")
    axes.set_title(f"expected calibration error {100 * half['error']:.2f}")


def _counts(figure: Any, counts: Sequence[tuple[str, int, int]]) -> None:
    axes = figure.subplots()
    places = range(len(counts))
    axes.barh(
        [place - 0.18 for place in places], [gold for _, gold, _ in counts], 0.32, color=FIRST, label="gold"
    )
    axes.barh(
        [place + 0.18 for place in places],
        [said for _, _, said in counts],
        0.32,
        color="none",
        edgecolor=SECOND,
        label="predicted",
    )
    _rows(axes, [name for name, _, _ in counts])
    figure.legend(loc="outside upper center", ncols=2, fontsize=7)


def _bars(figure: Any, values: Mapping[str, int], what: str) -> None:
    axes = figure.subplots()
    axes.barh(range(len(values)), list(values.values()), 0.6, color=FIRST)
    _rows(axes, list(values))
    axes.set_ylabel(what)
