"""The backbones by name: what planning must know of one. Importing this needs no torch.

Those of torchvision are a table; those of other libraries are looked at (backbones.outside).
"""

from dataclasses import dataclass
from pathlib import Path

from ....cache.spec import IMAGENET_MEAN, IMAGENET_STD, Transform
from ....manifests.errors import InputError, unknown_name
from ...base.settings import HUB, TIMM, split_hub
from ..demo import DEMO_BACKBONE, DEMO_LEVELS, DEMO_WEIGHTS
from .outside import Facts, OutsideModel, facts_of, is_outside, outside_model

__all__ = ["BACKBONES", "BackboneInfo", "backbone_info", "check_backbone", "info_of"]


_HALF = (0.5, 0.5, 0.5)
_PUBLISHED = "https://download.pytorch.org/models/"


@dataclass(frozen=True, kw_only=True)
class BackboneInfo(Facts):
    """The facts of a backbone that are known without building it.

    weights: where its default weights are, an address or a file that ships with this package. fused: whether
    stages.vision.fused knows its blocks; others compute with torch's own kernels.
    """

    name: str
    weights: str | Path
    fused: bool = False

    def transform(self, size: int = 0) -> Transform:
        """Return how an image becomes its input, as a view of `size` pixels a side (0: its own size).

        Raises InputError where it takes no views of that size.
        """
        if self.own_size and size not in (0, self.size):
            raise InputError(
                f"{self.name} takes views of {self.size} pixels alone, not of {size}; set [extract] size = 0"
            )
        return Transform(size or self.size, self.mean, self.std, self.interpolation)


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
        weights=f"{_PUBLISHED}{file}",
        fused=True,
    )


def _staged(
    name: str,
    levels: tuple[int, ...],
    file: str,
    *,
    size: int = 224,
    interpolation: str = "bilinear",
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> BackboneInfo:
    """Return another network of torchvision's, whose levels are the last maps at 1/4, 1/8, 1/16 and 1/32."""
    return BackboneInfo(
        name=name,
        levels=levels,
        strides=(4, 8, 16, 32),
        mean=mean,
        std=std,
        size=size,
        interpolation=interpolation,
        weights=f"{_PUBLISHED}{file}",
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
        _staged("convnext_base", (128, 256, 512, 1024), "convnext_base-6075fbad.pth"),
        _staged("convnext_large", (192, 384, 768, 1536), "convnext_large-ea097f82.pth"),
        _staged("convnext_small", (96, 192, 384, 768), "convnext_small-0c510722.pth"),
        _staged("convnext_tiny", (96, 192, 384, 768), "convnext_tiny-983f1562.pth"),
        _staged(
            "efficientnet_b0",
            (24, 40, 112, 320),
            "efficientnet_b0_rwightman-7f5810bc.pth",
            interpolation="bicubic",
        ),
        _staged("efficientnet_b1", (24, 40, 112, 320), "efficientnet_b1-c27df63c.pth", size=240),
        _staged(
            "efficientnet_b2",
            (24, 48, 120, 352),
            "efficientnet_b2_rwightman-c35c1473.pth",
            size=288,
            interpolation="bicubic",
        ),
        _staged(
            "efficientnet_b3",
            (32, 48, 136, 384),
            "efficientnet_b3_rwightman-b3899882.pth",
            size=300,
            interpolation="bicubic",
        ),
        _staged(
            "efficientnet_b4",
            (32, 56, 160, 448),
            "efficientnet_b4_rwightman-23ab8bcd.pth",
            size=380,
            interpolation="bicubic",
        ),
        _staged(
            "efficientnet_b5",
            (40, 64, 176, 512),
            "efficientnet_b5_lukemelas-1a07897c.pth",
            size=456,
            interpolation="bicubic",
        ),
        _staged(
            "efficientnet_b6",
            (40, 72, 200, 576),
            "efficientnet_b6_lukemelas-24a108a5.pth",
            size=528,
            interpolation="bicubic",
        ),
        _staged(
            "efficientnet_b7",
            (48, 80, 224, 640),
            "efficientnet_b7_lukemelas-c5b4e57e.pth",
            size=600,
            interpolation="bicubic",
        ),
        _staged("efficientnet_v2_s", (48, 64, 160, 256), "efficientnet_v2_s-dd5fe13b.pth", size=384),
        _staged("efficientnet_v2_m", (48, 80, 176, 512), "efficientnet_v2_m-dc08266a.pth", size=480),
        _staged(
            "efficientnet_v2_l",
            (64, 96, 224, 640),
            "efficientnet_v2_l-59c71312.pth",
            size=480,
            interpolation="bicubic",
            mean=_HALF,
            std=_HALF,
        ),
        _staged("regnet_x_400mf", (32, 64, 160, 400), "regnet_x_400mf-62229a5f.pth"),
        _staged("regnet_x_800mf", (64, 128, 288, 672), "regnet_x_800mf-94a99ebd.pth"),
        _staged("regnet_x_1_6gf", (72, 168, 408, 912), "regnet_x_1_6gf-a12f2b72.pth"),
        _staged("regnet_x_3_2gf", (96, 192, 432, 1008), "regnet_x_3_2gf-7071aa85.pth"),
        _staged("regnet_x_8gf", (80, 240, 720, 1920), "regnet_x_8gf-2b70d774.pth"),
        _staged("regnet_x_16gf", (256, 512, 896, 2048), "regnet_x_16gf-ba3796d7.pth"),
        _staged("regnet_x_32gf", (336, 672, 1344, 2520), "regnet_x_32gf-6eb8fdc6.pth"),
        _staged("regnet_y_400mf", (48, 104, 208, 440), "regnet_y_400mf-e6988f5f.pth"),
        _staged("regnet_y_800mf", (64, 144, 320, 784), "regnet_y_800mf-58fc7688.pth"),
        _staged("regnet_y_1_6gf", (48, 120, 336, 888), "regnet_y_1_6gf-0d7bc02a.pth"),
        _staged("regnet_y_3_2gf", (72, 216, 576, 1512), "regnet_y_3_2gf-9180c971.pth"),
        _staged("regnet_y_8gf", (224, 448, 896, 2016), "regnet_y_8gf-dc2b1b54.pth"),
        _staged("regnet_y_16gf", (224, 448, 1232, 3024), "regnet_y_16gf-3e4a00f9.pth"),
        _staged("regnet_y_32gf", (232, 696, 1392, 3712), "regnet_y_32gf-8db6d4b5.pth"),
        _staged(
            "regnet_y_128gf",
            (528, 1056, 2904, 7392),
            "regnet_y_128gf_swag-c8ce3e52.pth",
            size=384,
            interpolation="bicubic",
        ),
        _staged("swin_t", (96, 192, 384, 768), "swin_t-704ceda3.pth", interpolation="bicubic"),
        _staged("swin_s", (96, 192, 384, 768), "swin_s-5e29d889.pth", interpolation="bicubic"),
        _staged("swin_b", (128, 256, 512, 1024), "swin_b-68c6b09e.pth", interpolation="bicubic"),
        _staged(
            "swin_v2_t", (96, 192, 384, 768), "swin_v2_t-b137f0e2.pth", size=256, interpolation="bicubic"
        ),
        _staged(
            "swin_v2_s", (96, 192, 384, 768), "swin_v2_s-637d8ceb.pth", size=256, interpolation="bicubic"
        ),
        _staged(
            "swin_v2_b", (128, 256, 512, 1024), "swin_v2_b-781e5279.pth", size=256, interpolation="bicubic"
        ),
        _staged("vgg11", (256, 512, 512, 512), "vgg11-8a719046.pth"),
        _staged("vgg11_bn", (256, 512, 512, 512), "vgg11_bn-6002323d.pth"),
        _staged("vgg13", (256, 512, 512, 512), "vgg13-19584684.pth"),
        _staged("vgg13_bn", (256, 512, 512, 512), "vgg13_bn-abd245e5.pth"),
        _staged("vgg16", (256, 512, 512, 512), "vgg16-397923af.pth"),
        _staged("vgg16_bn", (256, 512, 512, 512), "vgg16_bn-6c64b313.pth"),
        _staged("vgg19", (256, 512, 512, 512), "vgg19-dcbb9e9d.pth"),
        _staged("vgg19_bn", (256, 512, 512, 512), "vgg19_bn-c79401a0.pth"),
        BackboneInfo(
            name=DEMO_BACKBONE,
            levels=DEMO_LEVELS,
            strides=(4, 8, 16, 32),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            size=112,
            interpolation="bilinear",
            weights=DEMO_WEIGHTS,
            fused=True,
        ),
    )
}


def backbone_info(name: str, weights: str = "default") -> BackboneInfo:
    """Return the facts of the backbone `name`; those of another library are of its type, not of its place.

    weights: as the settings name them; a folder has all of a backbone of another library. Raises InputError,
    which lists the known ones, where there is none.
    """
    if is_outside(name):
        model = outside_model(name, weights)
        return info_of(model, facts_of(model))
    if name not in BACKBONES:
        raise unknown_name("backbone", name, [*BACKBONES, f"{HUB}NAME", f"{TIMM}NAME"])
    return BACKBONES[name]


def info_of(model: OutsideModel, facts: Facts) -> BackboneInfo:
    """Return what `backbone_info` returns of a backbone of another library with these facts."""
    return BackboneInfo(name=f"{split_hub(model.name)[0]}{model.kind()}", weights="", **vars(facts))


def check_backbone(name: str) -> None:
    """Raise InputError where `name` can be no backbone; one of another library need not be here."""
    if not is_outside(name):
        backbone_info(name)
    elif not split_hub(name)[1]:
        raise InputError(f"--backbone {name}: give a name or a folder behind {name}")
