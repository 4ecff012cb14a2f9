"""The types of transformers' object detectors: those that are tested, and those that are refused, and why.

Importing this needs neither torch nor transformers.
"""

from ..hub import Family, HubModel

__all__ = ["FAMILIES", "REFUSED", "check_type"]

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("detr", "facebook/detr-resnet-50"),
        Family("conditional_detr", "microsoft/conditional-detr-resnet-50"),
        Family("dab-detr", "IDEA-Research/dab-detr-resnet-50"),
        Family("deformable_detr", "SenseTime/deformable-detr"),
        Family("rt_detr", "PekingU/rtdetr_r50vd"),
        Family("rt_detr_v2", "PekingU/rtdetr_v2_r18vd"),
        Family("d_fine", "ustc-community/dfine-small-coco"),
        Family("deimv2", "Intellindust/DEIMv2_HGNetv2_N_COCO", "needs a recent transformers"),
        Family("lw_detr", "AnnaZhang/lwdetr_small_60e_coco", "needs a recent transformers"),
        Family("rf_detr", "Roboflow/rf-detr-base", "needs a recent transformers"),
        Family("table-transformer", "microsoft/table-transformer-detection", "finds tables"),
        Family("yolos", "hustvl/yolos-tiny"),
    )
}

_NEEDS_TEXT = "it needs the names of what to look for beside each image"
_PAGES = "it finds the parts of a page and not things"

REFUSED: dict[str, str] = {
    **dict.fromkeys(("grounding-dino", "mm-grounding-dino", "omdet-turbo", "owlv2", "owlvit"), _NEEDS_TEXT),
    **dict.fromkeys(("pp_doclayout_v2", "pp_doclayout_v3", "pp_doclayout_v4"), _PAGES),
    **dict.fromkeys(
        ("pp_ocrv5_mobile_det", "pp_ocrv5_server_det", "pp_ocrv6_medium_det", "pp_ocrv6_small_det"),
        "it finds lines of writing and not things",
    ),
}
"""By type, why it is refused."""


def check_type(model: HubModel) -> None:
    """Raise WeightsError where a model's type is no detector that is taken."""
    model.check_kind(
        FAMILIES,
        REFUSED,
        unknown="it is not known to find objects",
        instead="or give the boxes that it finds with --boxes FILE",
    )
