"""Build any detector by its name. This is the only place that knows which module makes which."""

from ...base.settings import HUB
from .detector import Detector
from .torchvision import build_torchvision
from .transformers import build_transformers

__all__ = ["build_detector"]


def build_detector(name: str, choice: str, min_score: float) -> Detector:
    """Return the detector `name` with the weights that `choice` stands for.

    min_score: the least score of an object that will be asked for.
    """
    if name.startswith(HUB):
        return build_transformers(name, choice)
    return build_torchvision(name, choice, min_score)
