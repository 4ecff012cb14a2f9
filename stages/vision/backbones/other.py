"""A backbone of another library: its network as the library has it, and which of its maps are levels."""

from contextlib import suppress

import torch
from torch import Tensor, nn

from ....manifests.errors import WeightsError
from ...base.settings import HUB, split_hub
from ..hub import HubModel
from . import info_of
from .backbone import Backbone
from .layout import Loaded, Measured, channels_first, measured
from .outside import Facts, OutsideModel, check_remembered

__all__ = ["OtherBackbone", "build_other"]

# The side of a view that a network is tried with besides its own: most strides divide it.
_OTHER = 224


class OtherBackbone(Backbone):
    """A network of timm or transformers; its levels are its maps that are no finer than a quarter."""

    def __init__(self, model: OutsideModel, loaded: Loaded) -> None:
        loaded.network.eval()
        found = _facts(model.name, loaded)
        self.facts, self._kept, self._last = found
        super().__init__(info_of(model, self.facts))
        self.other = loaded.network
        self._run = loaded.run
        self.eval()

    @property
    def network(self) -> nn.Module:
        return self.other

    @property
    def parts(self) -> list[list[nn.Module]]:
        return [[self.other]]

    def forward(self, pixels: Tensor) -> list[Tensor]:
        maps = self._run(self.other, pixels)
        return [channels_first(maps[i]) if self._last else maps[i] for i in self._kept]


def _facts(name: str, loaded: Loaded) -> tuple[Facts, list[int], bool]:
    """Return the facts of a network, which of its maps are levels, and whether channels are last.

    Raises WeightsError where its maps are none of an image.
    """

    def look(size: int) -> Measured:
        with torch.inference_mode():
            return measured(loaded.run(loaded.network, torch.zeros(1, 3, size, size)), size)

    try:
        found = look(loaded.size)
    except Exception as error:  # networks of others break in any way
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{name} cannot be the backbone: a view of {loaded.size} pixels becomes no maps ({reason})"
        ) from error
    side = _OTHER if loaded.size != _OTHER else _OTHER + 32
    looks = [(found.exact, loaded.size, found.strides)]
    with suppress(Exception):
        other = look(side)
        looks.append((other.exact, side, other.strides))
    # A map may leave out or fill up the edge of a view: of a large one it matters less.
    strides = max(looks)[2]
    kept = [i for i, stride in enumerate(strides) if stride >= 4] or list(range(len(strides)))
    facts = Facts(
        tuple(found.channels[i] for i in kept),
        tuple(strides[i] for i in kept),
        loaded.mean,
        loaded.std,
        loaded.size,
        loaded.interpolation,
        len(looks) == 1,
    )
    return facts, kept, found.channels_last


def build_other(model: OutsideModel, *, random: bool = False) -> OtherBackbone:
    """Return a backbone of another library, in evaluation mode.

    random: whatever weights it has, to look at its maps alone. Raises InputError or WeightsError where it is
    none, or where anything would be random that was not asked to be.
    """
    if split_hub(model.name)[0] == HUB:
        from .transformers import load

        assert isinstance(model, HubModel)
        loaded = load(model, random=random or model.random)
    else:
        from .timm import load as load_timm

        loaded = load_timm(model, random=random or model.random)
    backbone = OtherBackbone(model, loaded)
    if not random:  # otherwise it is built to be remembered
        check_remembered(model, backbone.facts)
    return backbone
