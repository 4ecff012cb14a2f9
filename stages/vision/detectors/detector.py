"""What every detector is: from an upright image to its best objects, in pixels of that image."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ...base.arithmetic import Arithmetic

__all__ = ["Detector", "Object", "best_objects", "things", "within"]

# How label maps call the absence of an object, and numbers that COCO left unused.
_NOTHING = ("", "__background__", "background", "n/a", "no object", "no-object", "no_object")


@dataclass(frozen=True)
class Object:
    """A detected object: its box in pixels of the upright image, its category and its score in 0..1."""

    box: tuple[float, float, float, float]
    label: str
    score: float


class Detector(ABC):
    """A network that finds objects, in evaluation mode."""

    def __init__(self, network: nn.Module) -> None:
        self.network: Any = network.eval().requires_grad_(False)

    @abstractmethod
    def top_objects(self, image: Image.Image, count: int, min_score: float) -> list[Object]:
        """Return the `count` objects of the highest scores (at least `min_score`), best first.

        image: upright RGB.
        """

    def prepare(self, arithmetic: Arithmetic) -> None:
        """Change the network so that it computes as `arithmetic` says.

        Raises InputError where this process cannot compute this way.
        """
        self.network.to(arithmetic.check())

    @property
    def device(self) -> torch.device:
        """Return the device of the network."""
        device: torch.device = next(self.network.parameters()).device
        return device


def best_objects(
    found: Mapping[str, Tensor], names: Mapping[int, str], count: int, min_score: float
) -> list[Object]:
    """Return the `count` best of what a library's detector found, best first.

    found: "boxes", (N, 4) as x0, y0, x1, y1; "scores", (N,); "labels", (N,) of int64. names: by label; an
    object of another label is left out.
    """
    scores = found["scores"].float().cpu()
    boxes, labels = found["boxes"].float().cpu().tolist(), found["labels"].cpu().tolist()
    # Most libraries sort by score; a stable sort keeps their order among equals and makes the promise here.
    order = torch.argsort(scores, descending=True, stable=True).tolist()
    best = [i for i in order if labels[i] in names][:count]
    return [
        Object(tuple(boxes[i]), names[labels[i]], float(scores[i]))
        for i in best
        if float(scores[i]) >= min_score
    ]


def things(names: Mapping[int, str]) -> dict[int, str]:
    """Return the labels that are names of things, and not of nothing or of a number that was never used."""
    return {label: name for label, name in names.items() if name.strip().lower() not in _NOTHING}


def within(found: Mapping[str, Tensor], image: Image.Image) -> dict[str, Tensor]:
    """Return what was found with its boxes cut at the edges of the image.

    found: see `best_objects`. What lies beyond an edge as a whole, or has no area, is left out.
    """
    boxes = found["boxes"].float()
    sides = torch.tensor([image.width, image.height] * 2, device=boxes.device)
    boxes = boxes.clamp(min=0).minimum(sides)
    seen = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return {name: of[seen] for name, of in {**found, "boxes": boxes}.items()}
