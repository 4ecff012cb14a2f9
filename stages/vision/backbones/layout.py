"""What the maps of a network of any library are, as one forward pass shows it: channels, strides, layout."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["Loaded", "Measured", "channels_first", "measured"]


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


def channels_first(maps: Tensor) -> Tensor:
    """Return maps (N, h, w, C) as (N, C, h, w)."""
    return maps.permute(0, 3, 1, 2)
