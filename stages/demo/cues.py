"""Pictures of the diagnostic corpus: each shows one thing that decides, at one scale.

    kind       objects whose kinds decide, as in the demonstration
    detail     how a small ball is striped: a few pixels of the whole picture, most of the ball's own crop
    scene      which edges of the picture are covered by bars, which no crop of the tree between them shows
    texture    how a large ball is striped, so finely that a deep level has averaged it away
    agreement  two trees, two balls, or one of each: what decides is whether the two are of one kind

Detail, scene and texture show the same four patterns. Nothing else of a picture depends on what decides.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from .pens import Colour, PixelBox, palette, resized
from .scenes import Frame, draw_scene, photograph, with_noise
from .sprites import draw_object

__all__ = ["CUES", "PATTERNS", "SIDE", "Picture", "Shown", "draw_picture"]

PATTERNS = ("upright", "level", "crossed", "slanted")
"""How a ball is striped, or the edges of a scene are covered; "crossed" is upright and level at once."""

SIDE = 224
"""Of a picture, in pixels."""

_VIEW = 112  # the side of a view of the preset

# Shares of the picture's side.
_SMALL = (0.17, 0.21)
# Larger, and the whole picture would show the stripes too, at a scale of its own.
_LARGE = (0.5, 0.62)
_TREE = (0.25, 0.42)
_BAR = (0.09, 0.13)
_CORNER = 0.34
_CLEAR = 0.27  # where no tree stands, so that no box of one comes near a bar

# Stripes across a ball, and how far they differ from its colour.
_COARSE = dict.fromkeys(PATTERNS, (7.0, 60.0))
# 2.7 pixels of a view. Chosen by benchmarks/level_probe.py, which tells the patterns apart on level 1 and not
# on level 4; upright stripes are seen best. The seams that cross the ball are what a deep level sees there.
_FINE = {**dict.fromkeys(PATTERNS, (_VIEW / 2.7, 50.0)), "upright": (_VIEW / 2.7, 36.0)}
_GREY: Colour = (128, 128, 128)
_SEAMS: tuple[Colour, Colour] = ((68, 68, 68), (188, 188, 188))
_BRIGHT: Colour = (255, 255, 255)
_DARK: Colour = (60, 60, 60)
_SEAM = (0.035, 0.07)  # of the ball's diameter
_SUPERSAMPLING = 3


@dataclass(frozen=True)
class Picture:
    """What a picture is to show: the kinds of its objects and, where its cue is one, a pattern."""

    cue: str
    kinds: tuple[str, ...]
    pattern: str = ""


@dataclass(frozen=True)
class Shown:
    """A picture as it was drawn: the boxes of its objects, in the order of their kinds."""

    picture: Picture
    image: Image.Image
    boxes: Sequence[PixelBox] = field(default=())


def draw_picture(picture: Picture, rng: Generator) -> Shown:
    """Return a square RGB picture of `SIDE` pixels, and where its objects are."""
    image, boxes = CUES[picture.cue](picture, rng)
    return Shown(picture, image, boxes)


_Drawn = tuple[Image.Image, list[PixelBox]]


def _objects(picture: Picture, rng: Generator) -> _Drawn:
    image, objects = draw_scene(picture.kinds, rng, SIDE)
    return image, [box for _, box in objects]


def _detail(picture: Picture, rng: Generator) -> _Drawn:
    frame = Frame(SIDE, rng)
    ball = _ball(rng.uniform(*_SMALL), palette(1, frame.colours, rng)[0], 0, rng)
    frame.put(_striped(ball, picture.pattern, *_COARSE[picture.pattern], rng), rng)
    return photograph(frame.image, rng), frame.boxes


def _texture(picture: Picture, rng: Generator) -> _Drawn:
    """Return a black-and-white picture: what a fine level sees of it is its stripes, and not its colours."""
    frame = Frame(SIDE, rng)
    ball = _ball(rng.uniform(*_LARGE), _GREY, 2, rng)
    frame.put(_striped(ball, picture.pattern, *_FINE[picture.pattern], rng), rng)
    return with_noise(frame.image.convert("L").convert("RGB"), 2.0, rng), frame.boxes


def _scene(picture: Picture, rng: Generator) -> _Drawn:
    frame = Frame(SIDE, rng)
    # Never dark itself, so that a bar is darker than whatever is beside it.
    frame.image = Image.blend(frame.image, Image.new("RGB", frame.image.size, _BRIGHT), 0.5)
    width, draw = round(SIDE * rng.uniform(*_BAR)), ImageDraw.Draw(frame.image)
    far, colour = SIDE - width, _DARK
    if picture.pattern in ("upright", "crossed"):
        draw.rectangle((0, 0, width - 1, SIDE), fill=colour)
        draw.rectangle((far, 0, SIDE, SIDE), fill=colour)
    if picture.pattern in ("level", "crossed"):
        draw.rectangle((0, 0, SIDE, width - 1), fill=colour)
        draw.rectangle((0, far, SIDE, SIDE), fill=colour)
    if picture.pattern == "slanted":
        reach = SIDE * _CORNER
        draw.polygon([(0, 0), (reach, 0), (0, reach)], fill=colour)
        draw.polygon([(SIDE, SIDE), (SIDE - reach, SIDE), (SIDE, SIDE - reach)], fill=colour)
    # Out of focus, like the clutter that the detector has learned to ignore: no box may show a bar.
    frame.image = frame.image.filter(ImageFilter.GaussianBlur(SIDE / 26))
    tree = draw_object(picture.kinds[0], SIDE * rng.uniform(*_TREE), frame.colours, rng)
    frame.put(tree, rng, margin=round(SIDE * _CLEAR))
    return photograph(frame.image, rng), frame.boxes


CUES: Mapping[str, Callable[[Picture, Generator], _Drawn]] = MappingProxyType(
    {"kind": _objects, "detail": _detail, "scene": _scene, "texture": _texture, "agreement": _objects}
)


def _ball(share: float, colour: Colour, seams: int, rng: Generator) -> Image.Image:
    """Return a ball whose diameter is a share of the picture's side, crossed by `seams` straight lines."""
    diameter = SIDE * share
    side = round(diameter * _SUPERSAMPLING)
    ball, mask = Image.new("RGB", (side, side), colour), Image.new("L", (side, side))
    draw = ImageDraw.Draw(ball)
    for _ in range(seams):
        turns = rng.uniform(0.0, 2.0 * math.pi, size=2)
        ends = [(side * (0.5 + 0.5 * math.cos(turn)), side * (0.5 + 0.5 * math.sin(turn))) for turn in turns]
        draw.line(ends, _SEAMS[int(rng.integers(2))], round(side * rng.uniform(*_SEAM)))
    ImageDraw.Draw(mask).ellipse((0, 0, side - 1, side - 1), fill=255)
    ball.putalpha(mask)
    return resized(ball, diameter)


def _striped(ball: Image.Image, pattern: str, stripes: float, contrast: float, rng: Generator) -> Image.Image:
    """Return `ball` with so many bright stripes across it, which differ from its colour by `contrast`."""
    rows, columns = np.mgrid[0 : ball.height, 0 : ball.width] * (2.0 * math.pi * stripes / ball.width)
    across, down = (axis + rng.uniform(0.0, 2.0 * math.pi) for axis in (columns, rows))
    wave = {
        "upright": np.sin(across),
        "level": np.sin(down),
        "crossed": math.sqrt(2.0) * np.sin(across) * np.sin(down),  # as strong as either
        "slanted": np.sin((across + down) / math.sqrt(2.0)),
    }[pattern]
    pixels = np.asarray(ball).astype(np.float64)
    pixels[:, :, :3] += contrast * wave[:, :, None]
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8), "RGBA")
