"""The settings of the extract stage."""

from dataclasses import dataclass

from ...cache.spec import STORAGE_DTYPES
from ...manifests.errors import InputError
from ..base.settings import setting
from ..vision.backbones import backbone_info

__all__ = ["ExtractSettings"]


@dataclass(frozen=True)
class ExtractSettings:
    """The table [extract] of run.toml."""

    backbone: str = setting("resnet50", "one of torchvision's ResNets, or demo_resnet")
    weights: str = setting(
        "default",
        "'default' (torchvision's ImageNet weights), a file, or 'random'",
        words=("default", "random"),
    )
    size: int = setting(224, "side of a view in pixels")
    pooled: int = setting(2, "side of a pooled pyramid level, the p of docs/method.md")
    dtype: str = setting("float16", "what is stored: float16, bfloat16 or float32")
    precision: str = setting("auto", "auto, fp32 or bf16; auto is bf16 where the hardware multiplies it")
    shard_rows: int = setting(256, "images per shard, which is a task; a kill can lose one per worker")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")

    def __post_init__(self) -> None:
        backbone_info(self.backbone)
        if self.dtype not in STORAGE_DTYPES:
            raise InputError(f"extract: dtype {self.dtype!r} is not one of {', '.join(STORAGE_DTYPES)}")
        if min(self.size, self.pooled, self.shard_rows) < 1:
            raise InputError("extract: size, pooled and shard_rows must be at least 1")
