"""Pictures for the demonstration: simple scenes whose objects, and their exact boxes, are known.

Four kinds of object decide something in the corpus (a person, a building, a logo, a trophy); two decide
nothing (a tree, a ball). Every kind is drawn at any size, so that size does not distinguish them.

    scene, objects = draw_scene(["person", "tree"], stream("example"))
"""

import math
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from ..vision.demo import DECIDING_KINDS, DISTRACTORS, KINDS
from .pens import Colour, PixelBox, near_colour, random_colour, resized, visible_box
from .sprites import draw_object

__all__ = [
    "DECIDING_KINDS",
    "DISTRACTORS",
    "KINDS",
    "Frame",
    "PixelBox",
    "SceneObject",
    "draw_scene",
    "photograph",
    "stream",
    "with_noise",
]

SceneObject = tuple[str, PixelBox]

# Shares of the frame. A single object may fill nearly all of it; one of several may not, or the next would
# find no room.
_SMALLEST = 0.16
_LARGEST_ALONE = 0.95
_LARGEST_AMONG_OTHERS = 0.55

_MAX_OVERLAP = 0.03  # of the smaller box


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
    frame = Frame(size, rng)
    largest = _LARGEST_ALONE if len(kinds) == 1 else _LARGEST_AMONG_OTHERS
    for kind in kinds:
        longest = size * math.exp(rng.uniform(math.log(_SMALLEST), math.log(largest)))
        frame.put(draw_object(kind, longest, frame.colours, rng), rng)
    return photograph(frame.image, rng), list(zip(kinds, frame.boxes, strict=True))


class Frame:
    """A picture in the making: a background of two colours, and the boxes of what was put on it."""

    def __init__(self, size: int, rng: Generator) -> None:
        sky, ground = random_colour(rng), random_colour(rng)
        self.size, self.colours = size, (sky, ground)
        self.image = _background(size, sky, ground, rng)
        self.boxes: list[PixelBox] = []

    def put(self, sprite: Image.Image, rng: Generator, margin: int = 0) -> None:
        """Put `sprite` where it hardly overlaps what is there, `margin` pixels or more from the edges.

        It is made smaller where the frame is crowded. Raises ValueError where there is no room for it.
        """
        smallest = _SMALLEST * self.size
        while True:
            visible = visible_box(sprite)
            for _ in range(30):
                x, y = (
                    int(rng.integers(margin, self.size - margin - side + 1))
                    for side in (sprite.width, sprite.height)
                )
                box = (x + visible[0], y + visible[1], x + visible[2], y + visible[3])
                if all(_overlap(box, other) <= _MAX_OVERLAP for other in self.boxes):
                    self.image.paste(sprite, (x, y), sprite)
                    self.boxes.append(box)
                    return
            longest = max(sprite.size)
            if longest <= smallest:
                raise ValueError(
                    f"{len(self.boxes) + 1} objects do not fit into a scene of {self.size} pixels"
                )
            sprite = resized(sprite, max(smallest, longest * 0.8))


def _background(size: int, sky: Colour, ground: Colour, rng: Generator) -> Image.Image:
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
            shape((x, y, x + width, y + height), fill=near_colour(sky if rng.random() < 0.5 else ground, rng))
        scene = clutter.filter(ImageFilter.GaussianBlur(size / 32))
    return scene


def photograph(scene: Image.Image, rng: Generator) -> Image.Image:
    """Return the scene as a camera would record it: sometimes a little soft, always a little noisy."""
    if rng.random() < 0.3:
        scene = scene.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8)))
    return with_noise(scene, rng.uniform(1.0, 8.0), rng)


def with_noise(scene: Image.Image, deviation: float, rng: Generator) -> Image.Image:
    """Return the scene with noise of this standard deviation on every pixel and channel."""
    noise = rng.normal(0.0, deviation, size=(scene.height, scene.width, 3))
    return Image.fromarray((np.asarray(scene) + noise).round().clip(0, 255).astype(np.uint8), "RGB")


def _overlap(one: PixelBox, other: PixelBox) -> float:
    """Return the area common to two boxes, as a share of the smaller one."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return max(width, 0) * max(height, 0) / smaller
