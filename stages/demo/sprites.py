"""The objects of the demonstration's pictures, each drawn alone on a transparent ground.

Every colour is drawn from one distribution whatever the kind, so that only shape distinguishes the kinds.
Every kind is drawn in several variants, so that no fixed stencil distinguishes them.
"""

import math
from collections.abc import Callable, Sequence

from numpy.random import Generator
from PIL import Image

from .pens import Colour, Pen, Point, palette, resized

__all__ = ["draw_object"]

_SUPERSAMPLING = 3


def draw_object(kind: str, longest: float, surroundings: Sequence[Colour], rng: Generator) -> Image.Image:
    """Return one object on a transparent ground, cut to its outline; its longer side is `longest` pixels."""
    outline = rng.uniform(0.008, 0.02) if rng.random() < 0.4 else 0.0
    pen = Pen(round(longest * _SUPERSAMPLING), palette(4, surroundings, rng), outline)
    _DRAWINGS[kind](pen, rng)
    image = pen.image
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(rng.uniform(-8.0, 8.0), Image.Resampling.BILINEAR, expand=True)
    return resized(image.crop(image.getchannel("A").getbbox()), longest)


def _polar(angle: float, radius: float) -> Point:
    return 0.5 + radius * math.cos(math.radians(angle)), 0.5 + radius * math.sin(math.radians(angle))


def _draw_person(pen: Pen, rng: Generator) -> None:
    head = rng.uniform(0.085, 0.11)
    shoulders, hips = rng.uniform(0.11, 0.16), rng.uniform(0.08, 0.12)
    neck, waist = 0.02 + 2.0 * head, rng.uniform(0.53, 0.6)
    for side in (-1, 1):
        foot = 0.5 + side * (hips * 0.5 + rng.uniform(0.0, 0.12))
        pen.stroke([(0.5 + side * hips * 0.6, waist), (foot, 0.93)], rng.uniform(0.075, 0.1), 1)
        pen.ellipse(foot + side * 0.02, 0.955, 0.055, 0.03, 3)
    if rng.random() < 0.3:
        hem = rng.uniform(0.14, 0.2)
        pen.polygon(
            [(0.5 - hips, waist - 0.03), (0.5 + hips, waist - 0.03), (0.5 + hem, 0.78), (0.5 - hem, 0.78)], 1
        )
    pen.rectangle(0.47, neck - 0.03, 0.53, neck + 0.05, 2)
    for side in (-1, 1):
        joint = (0.5 + side * (shoulders - 0.02), neck + 0.06)
        # Hanging, on the hip, or raised.
        upper, lower = [(80.0, 85.0), (55.0, 125.0), (15.0, -60.0)][int(rng.integers(3))]
        elbow = _step(joint, upper + rng.uniform(-15, 15), 0.16, side)
        hand = _step(elbow, lower + rng.uniform(-15, 15), 0.16, side)
        thickness = rng.uniform(0.055, 0.07)
        pen.stroke([joint, elbow, hand], thickness, 0)
        pen.ellipse(*hand, 0.035, 0.035, 2)
    pen.polygon(
        [
            (0.5 - shoulders, neck + 0.03),
            (0.5 + shoulders, neck + 0.03),
            (0.5 + hips, waist),
            (0.5 - hips, waist),
        ],
        0,
    )
    pen.ellipse(0.5, head + 0.01, head * rng.uniform(0.8, 1.0), head, 2)
    match int(rng.integers(3)):
        case 0:  # hair
            pen.slice(0.5, head, head * 1.02, head * 1.02, 180, 360, 3)
        case 1:  # a hat
            pen.rectangle(0.5 - head * 1.4, head * 0.65, 0.5 + head * 1.4, head * 0.9, 3)
            pen.rectangle(0.5 - head * 0.8, 0.005, 0.5 + head * 0.8, head * 0.8, 3)


def _step(start: Point, angle: float, length: float, side: int) -> Point:
    """Return the point `length` from `start` at `angle` degrees below the horizontal.

    side: 1 to the right, -1 to the left.
    """
    return start[0] + side * length * math.cos(math.radians(angle)), start[1] + length * math.sin(
        math.radians(angle)
    )


def _draw_building(pen: Pen, rng: Generator) -> None:
    half = rng.uniform(0.24, 0.46)
    left, right, eaves = 0.5 - half, 0.5 + half, rng.uniform(0.15, 0.35)
    match int(rng.integers(4)):
        case 0:  # flat, with a parapet
            eaves = rng.uniform(0.03, 0.3)
            pen.rectangle(left - 0.02, eaves - 0.02, right + 0.02, eaves + 0.04, 1)
        case 1:  # gable
            pen.polygon(
                [(left - 0.04, eaves), (0.5, eaves - rng.uniform(0.12, 0.15)), (right + 0.04, eaves)], 1
            )
        case 2:  # a set-back top
            pen.rectangle(0.5 - half * 0.55, eaves - 0.13, 0.5 + half * 0.55, eaves + 0.02, 1)
        case 3:  # a mast
            pen.stroke([(0.5, 0.02), (0.5, eaves)], 0.025, 1)
            pen.rectangle(0.5 - half * 0.4, eaves - 0.05, 0.5 + half * 0.4, eaves + 0.02, 1)
    pen.rectangle(left, eaves, right, 0.99, 0)
    columns = int(rng.integers(2, 5)) if half < 0.34 else int(rng.integers(3, 6))
    rows = int(rng.integers(2, 6))
    cell_width, cell_height = 2 * half / columns, (0.78 - eaves) / rows
    across, down = cell_width * rng.uniform(0.22, 0.34), cell_height * rng.uniform(0.22, 0.36)
    for row in range(rows):
        for column in range(columns):
            x, y = left + (column + 0.5) * cell_width, eaves + 0.03 + (row + 0.5) * cell_height
            pen.rectangle(x - across, y - down, x + across, y + down, 1 if rng.random() < 0.1 else 2)
    door = rng.uniform(0.04, 0.08)
    pen.rectangle(0.5 - door, 0.84, 0.5 + door, 0.99, 3)


def _draw_logo(pen: Pen, rng: Generator) -> None:
    outline = _LOGO_OUTLINES[int(rng.integers(len(_LOGO_OUTLINES)))](rng)
    pen.polygon(_scaled(outline, 0.48), 1)
    pen.polygon(_scaled(outline, rng.uniform(0.38, 0.44)), 0)
    glyph = _LOGO_GLYPHS[int(rng.integers(len(_LOGO_GLYPHS)))]
    reach = rng.uniform(0.24, 0.28)
    for part in glyph(rng):
        pen.polygon(_scaled(part, reach), 1 if rng.random() < 0.3 else 3)


def _scaled(points: Sequence[Point], factor: float) -> list[Point]:
    """Return points of the square from -1 to 1, scaled by `factor` around the middle of the canvas."""
    return [(0.5 + factor * x, 0.5 + factor * y) for x, y in points]


def _regular(corners: int, turn: float = 0.0, radius: float = 1.0) -> list[Point]:
    """Return a regular polygon with its first corner on top."""
    angles = [math.radians(turn - 90.0) + 2.0 * math.pi * corner / corners for corner in range(corners)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _star(points: int, inner: float) -> list[Point]:
    outer, between = _regular(points), _regular(points, 180.0 / points, inner)
    return [point for pair in zip(outer, between, strict=True) for point in pair]


def _squircle(rng: Generator) -> list[Point]:
    power = rng.uniform(0.25, 0.45)
    return [
        (math.copysign(abs(x) ** power, x), math.copysign(abs(y) ** power, y)) for x, y in _regular(48, 3.0)
    ]


def _shield(rng: Generator) -> list[Point]:
    waist = rng.uniform(0.1, 0.4)
    return [
        (-0.85, -0.95),
        (0.85, -0.95),
        (0.85, waist),
        (0.5, 0.65),
        (0.0, 1.0),
        (-0.5, 0.65),
        (-0.85, waist),
    ]


_LOGO_OUTLINES: tuple[Callable[[Generator], list[Point]], ...] = (
    lambda rng: _regular(48),
    lambda rng: _regular(6, 30.0 * int(rng.integers(2))),
    lambda rng: _regular(8, 22.5),
    lambda rng: _regular(4),
    _squircle,
    _shield,
)


def _bars(rng: Generator) -> list[list[Point]]:
    heights = rng.uniform(0.3, 1.0, size=3)
    return [
        [(x, 0.9), (x + 0.5, 0.9), (x + 0.5, 0.9 - 1.8 * height), (x, 0.9 - 1.8 * height)]
        for x, height in zip((-0.95, -0.25, 0.45), heights, strict=True)
    ]


def _chevrons(rng: Generator) -> list[list[Point]]:
    rise = rng.uniform(0.4, 0.7)
    return [
        [
            (-0.9, y + rise),
            (0.0, y),
            (0.9, y + rise),
            (0.9, y + rise + 0.3),
            (0.0, y + 0.3),
            (-0.9, y + rise + 0.3),
        ]
        for y in (-0.85, -0.15)
    ]


def _plus(rng: Generator) -> list[list[Point]]:
    arm = rng.uniform(0.25, 0.4)
    return [[(-arm, -1), (arm, -1), (arm, 1), (-arm, 1)], [(-1, -arm), (1, -arm), (1, arm), (-1, arm)]]


def _letter_n(rng: Generator) -> list[list[Point]]:
    stem = rng.uniform(0.35, 0.5)
    left, right = -0.85, 0.85
    diagonal = [(left, -0.9), (left + stem, -0.9), (right, 0.9), (right - stem, 0.9)]
    return [
        [
            (left, -0.9),
            (left + stem, -0.9),
            *_between(diagonal[1], diagonal[2], right - stem),
            (right - stem, -0.9),
            (right, -0.9),
            (right, 0.9),
            (right - stem, 0.9),
            *_between(diagonal[0], diagonal[3], left + stem),
            (left + stem, 0.9),
            (left, 0.9),
        ]
    ]


def _between(start: Point, end: Point, x: float) -> list[Point]:
    """Return the one point at `x` on the straight line through `start` and `end`."""
    return [(x, start[1] + (end[1] - start[1]) * (x - start[0]) / (end[0] - start[0]))]


def _letter_e(rng: Generator) -> list[list[Point]]:
    reach = rng.uniform(0.4, 0.8)
    steps = [-0.9, -0.5, -0.2, 0.2, 0.5, 0.9]
    return [
        [
            (-0.75, steps[0]),
            (0.8, steps[0]),
            (0.8, steps[1]),
            (-0.3, steps[1]),
            (-0.3, steps[2]),
            (reach, steps[2]),
            (reach, steps[3]),
            (-0.3, steps[3]),
            (-0.3, steps[4]),
            (0.8, steps[4]),
            (0.8, steps[5]),
            (-0.75, steps[5]),
        ]
    ]


def _bolt(rng: Generator) -> list[list[Point]]:
    lean = rng.uniform(0.0, 0.3)
    return [[(0.3 + lean, -1.0), (-0.7, 0.15), (-0.05, 0.15), (-0.3 - lean, 1.0), (0.7, -0.2), (0.05, -0.2)]]


_LOGO_GLYPHS: tuple[Callable[[Generator], list[list[Point]]], ...] = (
    lambda rng: [_star(5, rng.uniform(0.38, 0.5))],
    lambda rng: [_star(4, rng.uniform(0.3, 0.45))],
    lambda rng: [_regular(3, 180.0 * int(rng.integers(2)))],
    _bars,
    _chevrons,
    _plus,
    _letter_n,
    _letter_e,
    _bolt,
)


def _draw_trophy(pen: Pen, rng: Generator) -> None:
    rim, depth = rng.uniform(0.2, 0.28), rng.uniform(0.28, 0.4)
    top = 0.06
    handle, thickness = rng.uniform(0.1, 0.14), rng.uniform(0.035, 0.05)
    for side in (-1, 1):
        span = (90, 270) if side < 0 else (-90, 90)
        pen.arc(0.5 + side * (rim - 0.02), top + depth * 0.42, handle, depth * 0.38, *span, thickness, 1)
    knob = top + depth + rng.uniform(0.06, 0.12)
    pen.polygon([(0.465, top + depth - 0.03), (0.535, top + depth - 0.03), (0.56, 0.86), (0.44, 0.86)], 0)
    pen.ellipse(0.5, knob, 0.06, 0.035, 1)
    curve = [math.radians(angle) for angle in range(0, 181, 10)]
    straight = rng.uniform(0.2, 0.5) * depth
    pen.polygon(
        [(0.5 - rim, top), (0.5 + rim, top)]
        + [
            (0.5 + rim * math.cos(turn), top + straight + (depth - straight) * math.sin(turn))
            for turn in curve
        ],
        0,
    )
    pen.rectangle(0.5 - rim - 0.02, top - 0.02, 0.5 + rim + 0.02, top + 0.03, 1)
    base = rng.uniform(0.16, 0.24)
    pen.rectangle(0.5 - base * 0.7, 0.8, 0.5 + base * 0.7, 0.88, 2)
    pen.rectangle(0.5 - base, 0.87, 0.5 + base, 0.98, 3)
    if rng.random() < 0.5:
        emblem = _star(5, 0.45)
        pen.polygon([(0.5 + 0.09 * x, top + depth * 0.45 + 0.09 * y) for x, y in emblem], 2)


def _draw_tree(pen: Pen, rng: Generator) -> None:
    trunk = rng.uniform(0.035, 0.07)
    pen.polygon(
        [(0.5 - trunk, 0.55), (0.5 + trunk, 0.55), (0.5 + trunk * 1.4, 0.99), (0.5 - trunk * 1.4, 0.99)], 1
    )
    match int(rng.integers(3)):
        case 0:  # a conifer
            tiers, half, bottom = int(rng.integers(2, 5)), rng.uniform(0.24, 0.36), rng.uniform(0.75, 0.85)
            for tier in range(tiers):
                low = bottom - (bottom - 0.3) * tier / tiers
                width = half * (1.0 - 0.55 * tier / tiers)
                high = max(0.02, low - (bottom - 0.02) * 1.5 / tiers)
                pen.polygon([(0.5 - width, low), (0.5 + width, low), (0.5, high)], 0)
        case 1:  # a round crown
            pen.ellipse(0.5, 0.36, rng.uniform(0.24, 0.38), 0.34, 0)
        case 2:  # a crown of clumps
            radius = rng.uniform(0.14, 0.18)
            for turn in range(0, 360, 60):
                angle = math.radians(turn + rng.uniform(-15, 15))
                pen.ellipse(0.5 + 0.2 * math.cos(angle), 0.36 + 0.18 * math.sin(angle), radius, radius, 0)
            pen.ellipse(0.5, 0.36, 0.2, 0.2, 0)
    for _ in range(int(rng.integers(0, 4))):
        angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.0, 0.14)
        pen.ellipse(0.5 + distance * math.cos(angle), 0.45 + distance * math.sin(angle), 0.03, 0.03, 2)


def _draw_ball(pen: Pen, rng: Generator) -> None:
    radius, seam = 0.48, rng.uniform(0.018, 0.03)
    pen.ellipse(0.5, 0.5, radius, radius, 0)
    match int(rng.integers(3)):
        case 0:  # football: a pentagon, its spokes, and the pentagons at the edge
            turn = rng.uniform(0, 72)
            inner, outer = _regular(5, turn, 0.16), _regular(5, turn, 0.34)
            for start, end in zip(inner, outer, strict=True):
                pen.stroke([(0.5 + start[0], 0.5 + start[1]), (0.5 + end[0], 0.5 + end[1])], seam, 1)
            pen.polygon([(0.5 + x, 0.5 + y) for x, y in inner], 1)
            for x, y in outer:
                angle = math.degrees(math.atan2(y, x))
                edge = [
                    _polar(angle - 20, radius - 0.01),
                    _polar(angle, radius),
                    _polar(angle + 20, radius - 0.01),
                ]
                pen.polygon([*edge, _polar(angle + 10, 0.34), _polar(angle - 10, 0.34)], 1)
        case 1:  # basketball: a cross and two arcs
            pen.stroke([(0.5, 0.5 - radius + seam), (0.5, 0.5 + radius - seam)], seam, 1)
            pen.stroke([(0.5 - radius + seam, 0.5), (0.5 + radius - seam, 0.5)], seam, 1)
            bend = rng.uniform(0.2, 0.26)
            pen.arc(0.5 - radius, 0.5, bend + 0.05, 0.4, -72, 72, seam, 1)
            pen.arc(0.5 + radius, 0.5, bend + 0.05, 0.4, 108, 252, seam, 1)
        case 2:  # beach ball: segments
            segments, turn = int(rng.integers(3, 5)), rng.uniform(0, 360)
            for segment in range(segments):
                angle = turn + segment * 360 / segments
                pen.slice(0.5, 0.5, radius, radius, angle, angle + 180 / segments, 1 + segment % 2)
            pen.ellipse(0.5, 0.5, 0.07, 0.07, 3)


_DRAWINGS: dict[str, Callable[[Pen, Generator], None]] = {
    "person": _draw_person,
    "building": _draw_building,
    "logo": _draw_logo,
    "trophy": _draw_trophy,
    "tree": _draw_tree,
    "ball": _draw_ball,
}
