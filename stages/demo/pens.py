"""Colours, and the pen that draws an object of the demonstration's pictures on a transparent ground."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

__all__ = [
    "Colour",
    "Pen",
    "PixelBox",
    "Point",
    "near_colour",
    "palette",
    "random_colour",
    "resized",
    "visible_box",
]

# x0, y0, x1, y1 in whole pixels, half-open: the object's pixels are [x0, x1) by [y0, y1).
PixelBox = tuple[int, int, int, int]

Colour = tuple[int, int, int]
Point = tuple[float, float]

_MIN_CONTRAST = 90.0  # euclidean distance in RGB
# An antialiased edge belongs to the box from a quarter on.
_VISIBILITY = [255 if alpha >= 64 else 0 for alpha in range(256)]


def random_colour(rng: Generator) -> Colour:
    red, green, blue = (int(value) for value in rng.integers(0, 256, size=3))
    return red, green, blue


def near_colour(colour: Colour, rng: Generator) -> Colour:
    red, green, blue = (
        int(value) for value in np.clip(np.asarray(colour) + rng.integers(-35, 36, size=3), 0, 255)
    )
    return red, green, blue


def palette(count: int, surroundings: Sequence[Colour], rng: Generator) -> list[Colour]:
    """Return `count` colours, the first in contrast to `surroundings`, each other one to the one before."""
    colours: list[Colour] = []
    for _ in range(count):
        against = colours[-1:] or surroundings
        # One candidate in a few differs enough from two colours; the bound only excludes an endless loop.
        for _ in range(100):
            colour = random_colour(rng)
            if all(math.dist(colour, other) >= _MIN_CONTRAST for other in against):
                break
        colours.append(colour)
    return colours


def visible_box(sprite: Image.Image) -> PixelBox:
    """Return the box of the visible part of `sprite`, in its own pixels."""
    box = sprite.getchannel("A").point(_VISIBILITY).getbbox()
    assert box is not None, "a sprite is never empty"
    return box


def resized(sprite: Image.Image, longest: float) -> Image.Image:
    """Return `sprite` with a longer side of `longest` pixels."""
    factor = longest / max(sprite.size)
    size = max(1, round(sprite.width * factor)), max(1, round(sprite.height * factor))
    return sprite.resize(size, Image.Resampling.BOX if factor < 0.7 else Image.Resampling.BILINEAR)


class Pen:
    """Draws on a transparent square in units of its side, y downwards.

    Its palette and its outline are those of one object.
    """

    def __init__(self, side: int, colours: Sequence[Colour], outline: float) -> None:
        self.image = Image.new("RGBA", (side, side))
        self.colours = colours
        self._draw = ImageDraw.Draw(self.image)
        self._side = side
        self._edge = tuple(round(channel * 0.3) for channel in colours[0]) if outline else None
        self._edge_width = max(1, round(outline * side))

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._side, y * self._side) for x, y in points]

    def polygon(self, points: Sequence[Point], colour: int) -> None:
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

    def stroke(self, points: Sequence[Point], thickness: float, colour: int) -> None:
        """Draw a line with round joints and ends."""
        pixels = self._pixels(points)
        width = max(1, round(thickness * self._side))
        self._draw.line(pixels, fill=self.colours[colour], width=width, joint="curve")
        for x, y in (pixels[0], pixels[-1]):
            self._draw.ellipse(
                (x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=self.colours[colour]
            )
