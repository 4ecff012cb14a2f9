"""Pictures for the demonstration: simple scenes whose objects, and their exact boxes, are known.

Four kinds of object decide something in the corpus (a person, a building, a logo, a trophy); two decide
nothing (a tree, a ball). Every colour is drawn from one distribution whatever the kind, so that only shape
distinguishes the kinds. Every kind is drawn at any size and in several variants, so that neither size nor a
fixed stencil distinguishes them.

    scene, objects = draw_scene(["person", "tree"], stream("example"))
"""

import math
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from ..vision.demo import DECIDING_KINDS, DISTRACTORS, KINDS

__all__ = ["DECIDING_KINDS", "DISTRACTORS", "KINDS", "PixelBox", "SceneObject", "draw_scene", "stream"]


# x0, y0, x1, y1 in whole pixels, half-open: the object's pixels are [x0, x1) by [y0, y1).
PixelBox = tuple[int, int, int, int]
SceneObject = tuple[str, PixelBox]

_Colour = tuple[int, int, int]
_Point = tuple[float, float]

# Shares of the frame. A single object may fill nearly all of it; one of several may not, or the next would
# find no room.
_SMALLEST = 0.16
_LARGEST_ALONE = 0.95
_LARGEST_AMONG_OTHERS = 0.55

_SUPERSAMPLING = 3
_MAX_OVERLAP = 0.03  # of the smaller box
_MIN_CONTRAST = 90.0  # euclidean distance in RGB
# An antialiased edge belongs to the box from a quarter on.
_VISIBILITY = [255 if alpha >= 64 else 0 for alpha in range(256)]


def stream(purpose: str, *key: int) -> Generator:
    """Return an independent random stream for `purpose` and the numbers in `key`.

    Equal names give equal streams, other names unrelated ones. Naming the streams keeps the scenes of the
    corpus, of training and of the tests apart, whatever their seeds.
    """
    return np.random.default_rng([zlib.crc32(purpose.encode()), *key])


def draw_scene(
    kinds: Sequence[str], rng: Generator, size: int = 160
) -> tuple[Image.Image, list[SceneObject]]:
    """Return a square RGB picture with one object of each of `kinds`, and those objects with their boxes.

    The picture's side is `size` pixels. Boxes are in the order of `kinds`, are exact up to antialiased edges,
    lie inside the frame and overlap by at most 3% of the smaller one.

    Raises ValueError for an unknown kind, and where the frame has no room for so many objects (four always
    fit).
    """
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"no drawing for the kinds {sorted(unknown)}, expected some of {', '.join(KINDS)}")
    sky, ground = _random_colour(rng), _random_colour(rng)
    scene = _background(size, sky, ground, rng)
    largest = _LARGEST_ALONE if len(kinds) == 1 else _LARGEST_AMONG_OTHERS
    objects: list[SceneObject] = []
    for kind in kinds:
        longest = size * math.exp(rng.uniform(math.log(_SMALLEST), math.log(largest)))
        sprite = _sprite(kind, longest, (sky, ground), rng)
        sprite, corner = _place(sprite, size, [box for _, box in objects], rng)
        scene.paste(sprite, corner, sprite)
        objects.append((kind, _moved(_visible(sprite), corner)))
    return _photograph(scene, rng), objects


# ------------------------------------------------------------------------------------------------- the frame


def _background(size: int, sky: _Colour, ground: _Colour, rng: Generator) -> Image.Image:
    """Return a gradient around `sky`, often with a horizon above `ground` or with faint blurred shapes."""
    direction = rng.uniform(0.0, 2.0 * math.pi)
    rows, columns = np.mgrid[0:size, 0:size] / size - 0.5
    ramp = columns * math.cos(direction) + rows * math.sin(direction)
    strength = rng.uniform(-70.0, 70.0, size=3)
    pixels = np.asarray(sky, dtype=np.float64) + ramp[:, :, None] * strength
    if rng.random() < 0.6:
        horizon = int(size * rng.uniform(0.45, 0.9))
        pixels[horizon:] = np.asarray(ground, dtype=np.float64) + ramp[horizon:, :, None] * strength
    scene = Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGB")
    if rng.random() < 0.4:
        # Out-of-focus clutter in the background's own colours, which a detector has to learn to ignore.
        clutter = scene.copy()
        draw = ImageDraw.Draw(clutter)
        for _ in range(int(rng.integers(1, 5))):
            x, y = rng.uniform(-0.1, 0.9, size=2) * size
            width, height = rng.uniform(0.1, 0.5, size=2) * size
            shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
            shape((x, y, x + width, y + height), fill=_near(sky if rng.random() < 0.5 else ground, rng))
        scene = clutter.filter(ImageFilter.GaussianBlur(size / 32))
    return scene


def _photograph(scene: Image.Image, rng: Generator) -> Image.Image:
    """Return the scene as a camera would record it: sometimes a little soft, always a little noisy."""
    if rng.random() < 0.3:
        scene = scene.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8)))
    noise = rng.normal(0.0, rng.uniform(1.0, 8.0), size=(scene.height, scene.width, 3))
    return Image.fromarray((np.asarray(scene) + noise).round().clip(0, 255).astype(np.uint8), "RGB")


def _place(
    sprite: Image.Image, size: int, taken: Sequence[PixelBox], rng: Generator
) -> tuple[Image.Image, tuple[int, int]]:
    """Return `sprite`, made smaller where the frame is crowded, and the position of its upper left corner."""
    smallest = _SMALLEST * size
    while True:
        visible = _visible(sprite)
        for _ in range(30):
            corner = (
                int(rng.integers(0, size - sprite.width + 1)),
                int(rng.integers(0, size - sprite.height + 1)),
            )
            if all(_overlap(_moved(visible, corner), other) <= _MAX_OVERLAP for other in taken):
                return sprite, corner
        longest = max(sprite.size)
        if longest <= smallest:
            raise ValueError(f"{len(taken) + 1} objects do not fit into a scene of {size} pixels")
        sprite = _resized(sprite, max(smallest, longest * 0.8))


def _overlap(one: PixelBox, other: PixelBox) -> float:
    """Return the area common to two boxes, as a share of the smaller one."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return max(width, 0) * max(height, 0) / smaller


def _visible(sprite: Image.Image) -> PixelBox:
    """Return the box of the visible part of `sprite`, in its own pixels."""
    box = sprite.getchannel("A").point(_VISIBILITY).getbbox()
    assert box is not None, "a sprite is never empty"
    return box


def _moved(box: PixelBox, corner: tuple[int, int]) -> PixelBox:
    return corner[0] + box[0], corner[1] + box[1], corner[0] + box[2], corner[1] + box[3]


def _resized(sprite: Image.Image, longest: float) -> Image.Image:
    factor = longest / max(sprite.size)
    size = max(1, round(sprite.width * factor)), max(1, round(sprite.height * factor))
    return sprite.resize(size, Image.Resampling.BOX if factor < 0.7 else Image.Resampling.BILINEAR)


# ------------------------------------------------------------------------------------------------ the colours


def _random_colour(rng: Generator) -> _Colour:
    red, green, blue = (int(value) for value in rng.integers(0, 256, size=3))
    return red, green, blue


def _near(colour: _Colour, rng: Generator) -> _Colour:
    red, green, blue = (
        int(value) for value in np.clip(np.asarray(colour) + rng.integers(-35, 36, size=3), 0, 255)
    )
    return red, green, blue


def _palette(count: int, surroundings: Sequence[_Colour], rng: Generator) -> list[_Colour]:
    """Return `count` colours, the first in contrast to `surroundings`, each other one to the one before."""
    colours: list[_Colour] = []
    for _ in range(count):
        against = colours[-1:] or surroundings
        # One candidate in a few differs enough from two colours; the bound only excludes an endless loop.
        for _ in range(100):
            colour = _random_colour(rng)
            if all(math.dist(colour, other) >= _MIN_CONTRAST for other in against):
                break
        colours.append(colour)
    return colours


# ------------------------------------------------------------------------------------------------ the objects


class _Pen:
    """Draws on a transparent square in units of its side, y downwards.

    Its palette and its outline are those of one object.
    """

    def __init__(self, side: int, colours: Sequence[_Colour], outline: float) -> None:
        self.image = Image.new("RGBA", (side, side))
        self.colours = colours
        self._draw = ImageDraw.Draw(self.image)
        self._side = side
        self._edge = tuple(round(channel * 0.3) for channel in colours[0]) if outline else None
        self._edge_width = max(1, round(outline * side))

    def _pixels(self, points: Sequence[_Point]) -> list[_Point]:
        return [(x * self._side, y * self._side) for x, y in points]

    def polygon(self, points: Sequence[_Point], colour: int) -> None:
        pixels = self._pixels(points)
        self._draw.polygon(pixels, fill=self.colours[colour])
        if self._edge:
            self._draw.line(
                [*pixels, pixels[0], pixels[1]], fill=self._edge, width=self._edge_width, joint="curve"
            )

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour: int, radius: float = 0.0) -> None:
        self._draw.rounded_rectangle(
            self._pixels([(x0, y0), (x1, y1)]),
            radius * self._side,
            fill=self.colours[colour],
            outline=self._edge,
            width=self._edge_width,
        )

    def ellipse(self, x: float, y: float, width: float, height: float, colour: int) -> None:
        """Draw an ellipse with half axes `width` and `height` around (x, y)."""
        corners = self._pixels([(x - width, y - height), (x + width, y + height)])
        self._draw.ellipse(corners, fill=self.colours[colour], outline=self._edge, width=self._edge_width)

    def slice(
        self, x: float, y: float, width: float, height: float, start: float, end: float, colour: int
    ) -> None:
        """Draw the part of an ellipse between two angles in degrees, clockwise from the right."""
        corners = self._pixels([(x - width, y - height), (x + width, y + height)])
        self._draw.pieslice(
            corners, start, end, fill=self.colours[colour], outline=self._edge, width=self._edge_width
        )

    def arc(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        start: float,
        end: float,
        thickness: float,
        colour: int,
    ) -> None:
        corners = self._pixels([(x - width, y - height), (x + width, y + height)])
        self._draw.arc(
            corners, start, end, fill=self.colours[colour], width=max(1, round(thickness * self._side))
        )

    def stroke(self, points: Sequence[_Point], thickness: float, colour: int) -> None:
        """Draw a line with round joints and ends."""
        pixels = self._pixels(points)
        width = max(1, round(thickness * self._side))
        self._draw.line(pixels, fill=self.colours[colour], width=width, joint="curve")
        for x, y in (pixels[0], pixels[-1]):
            self._draw.ellipse(
                (x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=self.colours[colour]
            )


def _sprite(kind: str, longest: float, surroundings: Sequence[_Colour], rng: Generator) -> Image.Image:
    """Return one object on a transparent ground, cut to its outline; its longer side is `longest` pixels."""
    outline = rng.uniform(0.008, 0.02) if rng.random() < 0.4 else 0.0
    pen = _Pen(round(longest * _SUPERSAMPLING), _palette(4, surroundings, rng), outline)
    _DRAWINGS[kind](pen, rng)
    image = pen.image
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(rng.uniform(-8.0, 8.0), Image.Resampling.BILINEAR, expand=True)
    return _resized(image.crop(image.getchannel("A").getbbox()), longest)


def _draw_person(pen: _Pen, rng: Generator) -> None:
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


def _step(start: _Point, angle: float, length: float, side: int) -> _Point:
    """Return the point `length` from `start` at `angle` degrees below the horizontal.

    side: 1 to the right, -1 to the left.
    """
    return start[0] + side * length * math.cos(math.radians(angle)), start[1] + length * math.sin(
        math.radians(angle)
    )


def _draw_building(pen: _Pen, rng: Generator) -> None:
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


def _draw_logo(pen: _Pen, rng: Generator) -> None:
    outline = _LOGO_OUTLINES[int(rng.integers(len(_LOGO_OUTLINES)))](rng)
    pen.polygon(_scaled(outline, 0.48), 1)
    pen.polygon(_scaled(outline, rng.uniform(0.38, 0.44)), 0)
    glyph = _LOGO_GLYPHS[int(rng.integers(len(_LOGO_GLYPHS)))]
    reach = rng.uniform(0.24, 0.28)
    for part in glyph(rng):
        pen.polygon(_scaled(part, reach), 1 if rng.random() < 0.3 else 3)


def _scaled(points: Sequence[_Point], factor: float) -> list[_Point]:
    """Return points of the square from -1 to 1, scaled by `factor` around the middle of the canvas."""
    return [(0.5 + factor * x, 0.5 + factor * y) for x, y in points]


def _regular(corners: int, turn: float = 0.0, radius: float = 1.0) -> list[_Point]:
    """Return a regular polygon with its first corner on top."""
    angles = [math.radians(turn - 90.0) + 2.0 * math.pi * corner / corners for corner in range(corners)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _star(points: int, inner: float) -> list[_Point]:
    outer, between = _regular(points), _regular(points, 180.0 / points, inner)
    return [point for pair in zip(outer, between, strict=True) for point in pair]


def _squircle(rng: Generator) -> list[_Point]:
    power = rng.uniform(0.25, 0.45)
    return [
        (math.copysign(abs(x) ** power, x), math.copysign(abs(y) ** power, y)) for x, y in _regular(48, 3.0)
    ]


def _shield(rng: Generator) -> list[_Point]:
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


_LOGO_OUTLINES: tuple[Callable[[Generator], list[_Point]], ...] = (
    lambda rng: _regular(48),
    lambda rng: _regular(6, 30.0 * int(rng.integers(2))),
    lambda rng: _regular(8, 22.5),
    lambda rng: _regular(4),
    _squircle,
    _shield,
)


def _bars(rng: Generator) -> list[list[_Point]]:
    heights = rng.uniform(0.3, 1.0, size=3)
    return [
        [(x, 0.9), (x + 0.5, 0.9), (x + 0.5, 0.9 - 1.8 * height), (x, 0.9 - 1.8 * height)]
        for x, height in zip((-0.95, -0.25, 0.45), heights, strict=True)
    ]


def _chevrons(rng: Generator) -> list[list[_Point]]:
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


def _plus(rng: Generator) -> list[list[_Point]]:
    arm = rng.uniform(0.25, 0.4)
    return [[(-arm, -1), (arm, -1), (arm, 1), (-arm, 1)], [(-1, -arm), (1, -arm), (1, arm), (-1, arm)]]


def _letter_n(rng: Generator) -> list[list[_Point]]:
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


def _between(start: _Point, end: _Point, x: float) -> list[_Point]:
    """Return the one point at `x` on the straight line through `start` and `end`."""
    return [(x, start[1] + (end[1] - start[1]) * (x - start[0]) / (end[0] - start[0]))]


def _letter_e(rng: Generator) -> list[list[_Point]]:
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


def _bolt(rng: Generator) -> list[list[_Point]]:
    lean = rng.uniform(0.0, 0.3)
    return [[(0.3 + lean, -1.0), (-0.7, 0.15), (-0.05, 0.15), (-0.3 - lean, 1.0), (0.7, -0.2), (0.05, -0.2)]]


_LOGO_GLYPHS: tuple[Callable[[Generator], list[list[_Point]]], ...] = (
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


def _draw_trophy(pen: _Pen, rng: Generator) -> None:
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


def _draw_tree(pen: _Pen, rng: Generator) -> None:
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


def _draw_ball(pen: _Pen, rng: Generator) -> None:
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


def _polar(angle: float, radius: float) -> _Point:
    return 0.5 + radius * math.cos(math.radians(angle)), 0.5 + radius * math.sin(math.radians(angle))


_DRAWINGS: dict[str, Callable[[_Pen, Generator], None]] = {
    "person": _draw_person,
    "building": _draw_building,
    "logo": _draw_logo,
    "trophy": _draw_trophy,
    "tree": _draw_tree,
    "ball": _draw_ball,
}
