"""The backbones by name: what planning must know of one. Importing this needs no torch."""

from dataclasses import dataclass
from pathlib import Path

from ....cache.spec import IMAGENET_MEAN, IMAGENET_STD, Transform
from ....manifests.errors import unknown_name
from ..demo import DEMO_BACKBONE, DEMO_LEVELS, DEMO_WEIGHTS

__all__ = ["BACKBONES", "BackboneInfo", "backbone_info"]


@dataclass(frozen=True)
class BackboneInfo:
    """The facts of a backbone that are known without building it.

    levels: channels of each level, from fine to coarse. strides: pixels of the view per cell of each level.
    mean, std, interpolation: how its pixels were prepared in training; size: the side of a view that it was
    trained with. weights: where its default weights are, an address or a file that ships with this package.
    """

    name: str
    levels: tuple[int, ...]
    strides: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    interpolation: str
    weights: str | Path

    def transform(self, size: int) -> Transform:
        """Return how an image becomes this backbone's input, as a view of `size` pixels a side."""
        return Transform(size, self.mean, self.std, self.interpolation)


def _resnet(name: str, first: int, file: str) -> BackboneInfo:
    """Return torchvision's ResNet `name`: `first` channels, and twice as many at each later level."""
    return BackboneInfo(
        name=name,
        levels=(first, 2 * first, 4 * first, 8 * first),
        strides=(4, 8, 16, 32),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        size=224,
        interpolation="bilinear",
        weights=f"https://download.pytorch.org/models/{file}",
    )


BACKBONES: dict[str, BackboneInfo] = {
    info.name: info
    for info in (
        _resnet("resnet18", 64, "resnet18-f37072fd.pth"),
        _resnet("resnet34", 64, "resnet34-b627a593.pth"),
        _resnet("resnet50", 256, "resnet50-11ad3fa6.pth"),
        _resnet("resnet101", 256, "resnet101-cd907fc2.pth"),
        _resnet("resnet152", 256, "resnet152-f82ba261.pth"),
        _resnet("resnext50_32x4d", 256, "resnext50_32x4d-1a0047aa.pth"),
        _resnet("resnext101_32x8d", 256, "resnext101_32x8d-110c445d.pth"),
        _resnet("resnext101_64x4d", 256, "resnext101_64x4d-173b62eb.pth"),
        _resnet("wide_resnet50_2", 256, "wide_resnet50_2-9ba9bcbe.pth"),
        _resnet("wide_resnet101_2", 256, "wide_resnet101_2-d733dc28.pth"),
        BackboneInfo(
            name=DEMO_BACKBONE,
            levels=DEMO_LEVELS,
            strides=(4, 8, 16, 32),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            size=112,
            interpolation="bilinear",
            weights=DEMO_WEIGHTS,
        ),
    )
}


def backbone_info(name: str) -> BackboneInfo:
    """Return the facts of the backbone `name`.

    Raises InputError, which lists the known ones, where there is none.
    """
    if name not in BACKBONES:
        raise unknown_name("backbone", name, BACKBONES)
    return BACKBONES[name]
