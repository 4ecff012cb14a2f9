"""What the numbers of a feature set are."""

import json
from dataclasses import asdict, dataclass

import numpy as np

__all__ = ["STORAGE_DTYPES", "FeatureSpec"]

# bfloat16 has no HDF5 type; its bits are kept as uint16.
STORAGE_DTYPES: dict[str, type[np.generic]] = {
    "float16": np.float16,
    "float32": np.float32,
    "bfloat16": np.uint16,
}


@dataclass(frozen=True)
class FeatureSpec:
    """What the numbers of a feature set are; equal specs can be read together.

    levels: channels of each pyramid level, from fine to coarse. pooled: the side p of each level after pooling.
    views: 1 + m. transform: how pixels became the network's input, in words. weights: the digest of the backbone's weights.
    """

    backbone: str
    weights: str
    transform: str
    levels: tuple[int, ...]
    pooled: int
    views: int
    dtype: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "FeatureSpec":
        values = json.loads(text)
        return cls(**{**values, "levels": tuple(values["levels"])})

    @property
    def row_shape(self) -> tuple[int, int, int, int]:
        return (self.views, sum(self.levels), self.pooled, self.pooled)
