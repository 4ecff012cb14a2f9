"""The settings of the extract stage."""

from dataclasses import dataclass

from ...cache.spec import STORAGE_DTYPES
from ..base.arithmetic import PRECISIONS
from ..base.settings import check_settings, setting
from ..vision.backbones import BACKBONES, check_backbone
from ..vision.sets import MOST_SIDE

__all__ = ["ExtractSettings"]


@dataclass(frozen=True)
class ExtractSettings:
    """The table [extract] of run.toml."""

    backbone: str = setting(
        "resnet50",
        "a network of torchvision's, demo_resnet, hf:NAME or hf:FOLDER for one of transformers, timm:NAME or "
        "timm:FOLDER for one of timm",
        words=tuple(BACKBONES),
    )
    weights: str = setting(
        "default",
        "'default' (its publisher's), a file, or 'random'; of hf: and timm: also a folder with all of it",
        words=("default", "random"),
    )
    size: int = setting(0, "side of a view in pixels; 0: the backbone's own", at_least=0, at_most=4096)
    pooled: int = setting(
        2, "side of a pooled pyramid level, the p of docs/method.md", at_least=1, at_most=MOST_SIDE
    )
    dtype: str = setting(
        "float16", "what is stored: float16, bfloat16 or float32", one_of=tuple(STORAGE_DTYPES)
    )
    precision: str = setting(
        "auto", "auto, fp32 or bf16; auto is bf16 where the hardware multiplies it", one_of=PRECISIONS
    )
    shard_rows: int = setting(
        256, "images per shard, which is a task; a kill can lose one per worker", at_least=1, at_most=2**16
    )
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")

    def __post_init__(self) -> None:
        check_settings("extract", self)
        check_backbone(self.backbone)
