"""What the maps of a network of any library are, as one forward pass shows it: channels, strides, layout."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor, nn

from ....manifests.errors import WeightsError
from ..known import is_number, shown

__all__ = ["Loaded", "Measured", "channels_first", "measured", "pixels", "spaced"]


@dataclass(frozen=True)
class Loaded:
    """A network, what runs it to all its maps, and how its pixels were prepared."""

    network: nn.Module
    run: Callable[[nn.Module, Tensor], Sequence[Tensor]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    interpolation: str


@dataclass(frozen=True)
class Measured:
    """The maps of one forward pass, in its order: the channels and the stride of each, and the layout.

    exact: whether every stride divides the side of the view, so that it is the quotient of the sides.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    exact: bool
    channels_last: bool


def measured(maps: Sequence[Tensor], side: int) -> Measured:
    """Return what the maps of a view of `side` x `side` pixels are.

    Maps of a square view are square, which shows where the channels stand, unless there are as many as a map
    has rows; such maps are as the others. Raises ValueError where they are no square maps.
    """
    if not maps or any(level.dim() != 4 for level in maps):
        raise ValueError(f"it gives {[tuple(level.shape) for level in maps]} instead of maps (N, C, h, w)")
    first = [level.shape[2] == level.shape[3] for level in maps]
    last = [level.shape[1] == level.shape[2] for level in maps]
    if not all(first) and not all(last):
        raise ValueError(f"its maps are not square: {[tuple(level.shape) for level in maps]}")
    channels_last = not all(first)
    shown = [level.permute(0, 3, 1, 2) if channels_last else level for level in maps]
    return Measured(
        tuple(level.shape[1] for level in shown),
        tuple(round(side / level.shape[2]) for level in shown),
        all(side % level.shape[2] == 0 for level in shown),
        channels_last,
    )


def pixels(file: object, mean: Any, std: Any, size: Any, interpolation: Any) -> dict[str, Any]:
    """Return how pixels were prepared, as Loaded has it, from what `file` says.

    mean, std: three numbers, or one for all three channels. interpolation: one of Pillow's, by its name.
    Raises WeightsError where no image can be prepared so: a deviation of 0 would make every feature infinite.
    """

    def wrong(what: str, value: Any) -> WeightsError:
        return WeightsError(
            f"{file}: the {what} of an image must not be {shown(value)}; put the backbone's own file there"
        )

    def three(what: str, value: Any) -> tuple[float, ...]:
        numbers = [value] * 3 if is_number(value) else value
        if not isinstance(numbers, list | tuple) or len(numbers) != 3 or not all(map(is_number, numbers)):
            raise wrong(what, value)
        return tuple(map(float, numbers))

    deviations = three("deviation (std)", std)
    if min(deviations) <= 0:
        raise wrong("deviation (std)", std)
    if type(size) is not int or size < 1:
        raise wrong("size", size)
    if not isinstance(interpolation, str) or interpolation.upper() not in Image.Resampling.__members__:
        raise wrong("interpolation (resample)", interpolation)
    return {
        "mean": three("mean", mean),
        "std": deviations,
        "size": size,
        "interpolation": interpolation.lower(),
    }


def spaced(layers: int) -> tuple[int, ...] | None:
    """Return which of so many layers of one width are levels: four, evenly spaced, the last one included.

    None where there are no more than five, which are stages and not layers.
    """
    return tuple(i * layers // 4 - 1 for i in (1, 2, 3, 4)) if layers > 5 else None


def channels_first(maps: Tensor) -> Tensor:
    """Return maps (N, h, w, C) as (N, C, h, w)."""
    return maps.permute(0, 3, 1, 2)
