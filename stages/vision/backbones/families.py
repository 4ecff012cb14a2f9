"""The kinds of backbones: those that are tested, and of transformers' those that are refused, and why.

Importing this needs neither torch nor transformers.
"""

from ..hub import Family, HubModel

__all__ = ["FAMILIES", "OF_TIMM", "OF_TORCHVISION", "REFUSED", "check_type"]

# torchvision's are cut into levels here; all of them are in BACKBONES.
OF_TORCHVISION = ("resnet", "resnext", "wide_resnet", "convnext", "efficientnet", "regnet", "swin", "vgg")

# Of timm's hundreds, those that tests build.
OF_TIMM: dict[str, Family] = {
    family.name: family
    for family in (
        Family("test_convnext", "convnext_tiny.in12k_ft_in1k"),
        Family("test_resnet", "resnet50.a1_in1k", "its map at half the pixels is no level"),
        Family("test_vit2", "vit_base_patch16_224.augreg2_in21k_ft_in1k", "as types of one width below"),
        Family(
            "swin_tiny_patch4_window7_224", "swin_tiny_patch4_window7_224.ms_in1k", "takes its own size alone"
        ),
    )
}

_LAYERS = "its levels are four of its layers, of one width and stride"

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("beit", "microsoft/beit-base-patch16-224", _LAYERS),
        Family("bit", "google/bit-50"),
        Family("convnext", "facebook/convnext-tiny-224"),
        Family("convnextv2", "facebook/convnextv2-tiny-22k-224"),
        Family("dinov2", "facebook/dinov2-base", _LAYERS),
        Family("dinov2_with_registers", "facebook/dinov2-with-registers-base", _LAYERS),
        Family("dinov3_convnext", "facebook/dinov3-convnext-tiny-pretrain-lvd1689m"),
        Family("dinov3_vit", "facebook/dinov3-vitb16-pretrain-lvd1689m", _LAYERS),
        Family("focalnet", "microsoft/focalnet-tiny"),
        Family("hiera", "facebook/hiera-base-224-hf"),
        Family("pvt_v2", "OpenGVLab/pvt_v2_b0"),
        Family("resnet", "microsoft/resnet-50"),
        Family("swin", "microsoft/swin-tiny-patch4-window7-224"),
        Family("swinv2", "microsoft/swinv2-tiny-patch4-window8-256"),
        Family("vitdet", "google/vitdet-base-patch16-224", _LAYERS),
    )
}

_DETECTORS = "it is the part of a detector; give the detector with --detector"

REFUSED: dict[str, str] = {
    "dinat": "it needs natten, a package of its own kernels",
    "maskformer-swin": "it is the part of a segmenter; use swin",
    "timm_backbone": "it is a network of timm; use timm:NAME",
    **dict.fromkeys(("lw_detr_vit", "rf_detr_dinov2", "rt_detr_resnet"), _DETECTORS),
    "vitpose_backbone": "it reads people in upright views, which are not square",
}
"""By type, why it is refused."""


def check_type(model: HubModel) -> None:
    """Raise WeightsError where a model's type is no backbone that is taken."""
    model.check_kind(
        FAMILIES,
        REFUSED,
        unknown="it is not known to give maps of an image",
        instead="a network of timm with timm:NAME, or one of torchvision's",
    )
