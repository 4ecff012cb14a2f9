"""The figures of the page as SVG: shapes tell what colours tell, and every text is escaped.

Colours and fonts are the page's: a shape has a class, and templates/style.css says what it looks like in
light, in dark and on paper.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, floor, isfinite, log10
from typing import Any

from markupsafe import Markup, escape

from ...manifests.printable import printable
from .data import Curve, ImageUse, Photo, ScoreRow

__all__ = ["curve_plot", "gates_map", "joined", "photo", "reliability_plot", "score_plot", "tag", "use_plot"]

_LABELS = 170
_WIDTH = 600
_ROW = 30


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """Return an element. Children are escaped unless they are Markup; `_` in a name stands for `-`."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{shown}>{''.join(map(_text, children))}</{name}>")


def joined(parts: Iterable[object]) -> Markup:
    """Return parts one after another, escaped unless they are Markup."""
    return Markup("".join(map(_text, parts)))


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(escape(value if isinstance(value, Markup) else printable(str(value))))


def _svg(width: float, height: float, label: str, *children: object, class_: str = "plot") -> Markup:
    box = f"0 0 {width:g} {height:g}"
    return tag("svg", *children, viewBox=box, role="img", aria_label=label, class_=class_, width=width)


def _at(share: float, low: float = 0.0, high: float = 1.0) -> float:
    """Return where a value lies on an axis from `low` to `high`, in pixels of a plot with labels."""
    return _LABELS + (share - low) / (high - low) * (_WIDTH - _LABELS - 24)


def _axis(height: float, ticks: Sequence[float], low: float, high: float) -> Iterable[Markup]:
    """Yield grid lines and, below, the ticks in percent."""
    for tick in ticks:
        x = _at(tick, low, high)
        yield tag("line", x1=x, x2=x, y1=4, y2=height - 22, class_="grid")
        yield tag("text", f"{100 * tick:g}", x=x, y=height - 6, text_anchor="middle", class_="tick")


def _span(values: Sequence[float], most: float = float("inf")) -> tuple[float, float, list[float]]:
    """Return round bounds around values that are not negative, at most `most`, and the ticks between them."""
    low, high = min(values), max(values)
    rough = max(high - low, 0.02) / 5
    unit = 10.0 ** floor(log10(rough))
    step = next(unit * one for one in (1, 2, 2.5, 5, 10) if unit * one >= rough - 1e-12)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    last = max(last, first + 1)
    last = min(last, ceil(most / step - 1e-9)) if isfinite(most) else last
    first = min(first, last - 1)
    return first * step, last * step, [number * step for number in range(first, last + 1)]


def score_plot(rows: Sequence[ScoreRow]) -> Markup:
    """Return F1 by row: each training a ring, their mean a dot."""
    shown = [row for row in rows if row.each]
    low, high, ticks = _span([value for row in shown for value in row.each], most=1.0)
    height = _ROW * len(shown) + 34
    parts = list(_axis(height, ticks, low, high))
    for number, row in enumerate(shown):
        y = _ROW * number + 20
        mean = sum(row.each) / len(row.each)
        parts.append(_label(row.name, y))
        parts.append(tag("line", x1=_LABELS, x2=_at(mean, low, high), y1=y, y2=y, class_="stem"))
        parts += [tag("circle", cx=_at(value, low, high), cy=y, r=4, class_="ring") for value in row.each]
        parts.append(tag("circle", cx=_at(mean, low, high), cy=y, r=5.5, class_="dot"))
    said = ", ".join(f"{row.name} {100 * sum(row.each) / len(row.each):.2f}" for row in shown)
    return _svg(_WIDTH, height, f"F1 in percent: {said}", *parts)


def _label(text: str, y: float) -> Markup:
    short = text if len(text) <= 26 else f"{text[:25]}…"
    return tag("text", tag("title", text), short, x=_LABELS - 12, y=y + 4, text_anchor="end")


def use_plot(use: ImageUse) -> Markup:
    """Return F1 by group: a dot as it is, a square with shuffled images, a diamond without."""
    height = _ROW * len(use.groups) + 34
    parts = list(_axis(height, [0, 0.25, 0.5, 0.75, 1], 0, 1))
    for number, group in enumerate(use.groups):
        y = _ROW * number + 20
        marks = [
            (one, mark)
            for one, mark in ((group.shuffled, _square), (group.without, _diamond))
            if one is not None
        ]
        ends = [group.as_is, *(value for value, _ in marks)]
        parts.append(_label(group.group, y))
        parts.append(tag("line", x1=_at(min(ends)), x2=_at(max(ends)), y1=y, y2=y, class_="stem"))
        parts += [mark(_at(value), y) for value, mark in marks]
        parts.append(tag("circle", cx=_at(group.as_is), cy=y, r=5.5, class_="dot"))
    said = "; ".join(
        f"{group.group}: as it is {_percent(group.as_is)}, shuffled {_percent(group.shuffled)}, "
        f"without {_percent(group.without)}"
        for group in use.groups
    )
    return _svg(_WIDTH, height, f"{use.title}, F1 in percent. {said}", *parts)


def _percent(value: float | None) -> str:
    return "not known" if value is None else f"{100 * value:.2f}"


def _square(x: float, y: float) -> Markup:
    return tag("rect", x=x - 5, y=y - 5, width=10, height=10, class_="square")


def _diamond(x: float, y: float) -> Markup:
    return tag(
        "path", d=f"M{x:.2f} {y - 7}L{x + 7:.2f} {y}L{x:.2f} {y + 7}L{x - 7:.2f} {y}Z", class_="diamond"
    )


def curve_plot(curves: Sequence[Curve], what: str) -> Markup:
    """Return one line for each training. what: "loss", or "valid_f1", whose best epoch has a dot."""
    width, height, left, bottom = 360, 200, 46, 28
    lines = [
        [
            (epoch, value)
            for epoch, value in zip(curve.epochs, getattr(curve, what), strict=True)
            if value is not None and isfinite(value)
        ]
        for curve in curves
    ]
    values = [value for line in lines for _, value in line]
    name = "loss" if what == "loss" else "validation F1"
    if not values:
        return _svg(width, height, f"{name}: none was measured")
    last = max(epoch for curve in curves for epoch in curve.epochs)
    low, high, ticks = _span([0.0, *values]) if what == "loss" else _span(values, most=1.0)

    def x(epoch: float) -> float:
        return left + (epoch - 1) / max(1, last - 1) * (width - left - 12)

    def y(value: float) -> float:
        return 8 + (high - value) / (high - low) * (height - bottom - 16)

    parts = []
    for value in ticks:
        shown = f"{100 * value:g}" if what != "loss" else f"{value:g}"
        parts.append(tag("line", x1=left, x2=width - 12, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", shown, x=left - 6, y=y(value) + 4, text_anchor="end", class_="tick"))
    step = max(1, -(-last // 8))
    for epoch in range(1, last + 1, step):
        parts.append(tag("text", epoch, x=x(epoch), y=height - 8, text_anchor="middle", class_="tick"))
    for curve, line in zip(curves, lines, strict=True):
        points = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in line)
        parts.append(tag("polyline", tag("title", f"seed {curve.seed}"), points=points, class_="line"))
        for epoch, value in line:
            if len(line) == 1 or (what == "valid_f1" and epoch == curve.best_epoch):
                parts.append(tag("circle", cx=x(epoch), cy=y(value), r=3.5, class_="dot"))
    seeds = ", ".join(str(curve.seed) for curve in curves)
    ends = ", ".join(f"{line[-1][1]:.4f}" for line in lines if line)
    said = f"{name} of {curves[0].name} by epoch, seeds {seeds}; at the end {ends}"
    return _svg(width, height, said, *parts, class_="plot small")


def reliability_plot(report: Mapping[str, Any]) -> Markup:
    """Return how often answers of each probability are right, beside the line where both are equal."""
    side, left, bottom = 300, 46, 30
    scale = side - left - 12

    def x(share: float) -> float:
        return left + share * scale

    def y(share: float) -> float:
        return 8 + (1 - share) * (side - bottom - 16)

    parts = [tag("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_="ideal")]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(tag("line", x1=x(0), x2=x(1), y1=y(tick), y2=y(tick), class_="grid"))
        parts.append(
            tag("text", f"{100 * tick:g}", x=left - 6, y=y(tick) + 4, text_anchor="end", class_="tick")
        )
        parts.append(
            tag("text", f"{100 * tick:g}", x=x(tick), y=side - 10, text_anchor="middle", class_="tick")
        )
    most = max(one["count"] for one in report["bins"]) or 1
    for one in report["bins"]:
        if not one["count"]:
            continue
        wide = (x(one["to"]) - x(one["from"])) - 2
        parts.append(
            tag(
                "rect",
                x=x(one["from"]) + 1,
                y=y(one["accuracy"]),
                width=wide,
                height=y(0) - y(one["accuracy"]),
                class_="bar",
            )
        )
        r = 2 + 4 * (one["count"] / most) ** 0.5
        parts.append(tag("circle", cx=x(one["confidence"]), cy=y(one["accuracy"]), r=r, class_="dot"))
    said = "; ".join(
        f"{one['from']:.1f} to {one['to']:.1f}: {100 * one['accuracy']:.1f} percent right of {one['count']}"
        for one in report["bins"]
        if one["count"]
    )
    return _svg(side, side, f"Share that is right by probability. {said}", *parts, class_="plot small")


def gates_map(
    gates: Sequence[Sequence[Sequence[float]]], names: Sequence[str], present: Sequence[bool]
) -> Markup:
    """Return the gates of one sample: of each view a row for each layer, and a column for each level.

    gates: [layer][view][level]. names, present: of the views; those that are not there are left out.
    """
    views = [view for view, there in enumerate(present) if there]
    cell, gap, top, left = 12, 18, 18, 26
    levels = len(gates[0][0])
    parts = []
    for place, view in enumerate(views):
        start = left + place * (levels * cell + gap)
        parts.append(
            tag(
                "text",
                names[view].replace("whole ", "").replace("object ", "obj. "),
                x=start,
                y=12,
                class_="tick",
            )
        )
        for layer, row in enumerate(gates):
            for level, value in enumerate(row[view]):
                title = tag("title", f"{names[view]}, layer {layer + 1}, level {level + 1}: {value:.2f}")
                where = {"x": start + level * cell, "y": top + layer * cell}
                parts.append(
                    tag(
                        "rect",
                        title,
                        **where,
                        width=cell - 1,
                        height=cell - 1,
                        class_="heat",
                        fill_opacity=0.06 + 0.94 * value,
                    )
                )
    for layer in range(len(gates)):
        if layer in (0, len(gates) - 1):
            parts.append(
                tag(
                    "text", layer + 1, x=left - 6, y=top + layer * cell + 10, text_anchor="end", class_="tick"
                )
            )
    width = left + len(views) * (levels * cell + gap)
    said = "; ".join(
        f"{names[view]}: "
        + ", ".join(
            f"level {level + 1} {sum(row[view][level] for row in gates) / len(gates):.2f}"
            for level in range(levels)
        )
        for view in views
    )
    height = top + len(gates) * cell + 4
    return _svg(width, height, f"Gates, the mean over layers. {said}", *parts, class_="plot small")


def photo(picture: Photo, weights: Sequence[float], cells: Sequence[float] | None) -> Markup:
    """Return a photo with its boxes, and over it what a word looks at. Boxes of mentions have dashed frames.

    weights: the share of the attention of each view, the whole image first; none: it is not known. cells:
    that of each cell of the whole image, row-major, of a square grid.
    """
    width, height = picture.width, picture.height
    parts: list[Markup] = []
    if picture.uri is not None:
        parts.append(tag("image", href=picture.uri, width=width, height=height))
    else:
        parts.append(tag("rect", width=width, height=height, class_="nophoto"))
    if cells:
        side = round(len(cells) ** 0.5)
        most = max(cells) or 1.0
        for number, value in enumerate(cells):
            row, column = divmod(number, side)
            title = tag("title", f"cell {row + 1}, {column + 1}: {100 * value:.1f}% of the attention")
            where = {"x": column * width / side, "y": row * height / side}
            shade = 0.5 * (1 - value / most)
            parts.append(
                tag(
                    "rect",
                    title,
                    **where,
                    width=width / side,
                    height=height / side,
                    class_="cell",
                    fill_opacity=shade,
                )
            )
    for box in picture.boxes:
        x0, y0, x1, y1 = (side * of for side, of in zip(box.sides, (width, height) * 2, strict=True))
        share = weights[box.view] if box.view < len(weights) else None
        said = f"{box.view} {box.label} {100 * box.score:.0f}%"
        title = tag("title", said if share is None else f"{said}, {100 * share:.1f}% of the attention")
        line = 1.5 + 4 * (share or 0.0)
        parts.append(
            tag(
                "rect",
                title,
                x=x0,
                y=y0,
                width=max(1.0, x1 - x0),
                height=max(1.0, y1 - y0),
                class_="box",
                stroke_width=line,
            )
        )
        parts.append(
            tag(
                "text",
                f"{box.view} {box.label}",
                x=x0 + 3,
                y=y0 + 12 if y0 >= 13 else 13.0,
                class_="boxlabel",
            )
        )
    for one in picture.drawn:
        x0, y0, x1, y1 = (side * of for side, of in zip(one.sides, (width, height) * 2, strict=True))
        title = tag("title", f"drawn by a person for {one.label}")
        place = {"x": x0, "y": y0, "width": max(1.0, x1 - x0), "height": max(1.0, y1 - y0)}
        # Light dashes on a dark line can be seen on any photo, and on the frame of an object.
        parts += [tag("rect", **place, class_="under"), tag("rect", title, **place, class_="drawn")]
        # At the foot of the frame, as those of objects stand at its head, and not beyond the photo.
        left = x0 + x1 < width
        side = {"x": x0 + 3} if left else {"x": x1 - 3, "text_anchor": "end"}
        parts.append(tag("text", one.label, **side, y=max(y1, 17.0) - 5, class_="boxlabel"))
    objects = ", ".join(f"{box.label} {100 * box.score:.0f}%" for box in picture.boxes) or "none"
    what = "Photo" if picture.uri is not None else "Outline of a photo that is left out"
    label = f"{what}; detected objects: {objects}"
    if picture.drawn:
        label += f"; boxes of mentions: {', '.join(one.label for one in picture.drawn)}"
    return _svg(width, height, label, *parts, class_="photo")
