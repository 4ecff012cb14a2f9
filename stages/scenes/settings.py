"""The settings of the scenes stage."""

from dataclasses import dataclass

from ...manifests.errors import InputError
from ..base.settings import check_settings, setting

__all__ = ["EMPTY", "FILLED", "SceneSettings"]

EMPTY, FILLED = "empty", "geometry"


@dataclass(frozen=True)
class SceneSettings:
    """The table [scenes] of run.toml."""

    graphs: str = setting(
        "", "file of your own scene graphs; empty: spatial relations of the detections", words=("",)
    )
    features: str = setting(
        "", "safetensors or HDF5 file of the features of the objects of `graphs`", words=("",)
    )
    missing: str = setting(
        EMPTY,
        "an image without a graph of yours is empty, or is given its geometry",
        one_of=(EMPTY, FILLED),
    )
    objects: int = setting(10, "objects of an image, by score", at_least=1, at_most=100)
    inside: float = setting(0.9, "share of an object that lies inside another", at_least=0, at_most=1)
    overlap: float = setting(0.1, "intersection over union of objects that overlap", at_least=0, at_most=1)
    near: float = setting(
        0.25, "gap between near objects, in mean diagonals of their boxes", at_least=0, at_most=100
    )
    cooccurrence: float = setting(
        0.5, "least PPMI, on the training split, of labels that belong together", at_least=0, at_most=100
    )
    edges: float = setting(2.0, "relations kept for each object, by score", at_least=0, at_most=100)

    def __post_init__(self) -> None:
        check_settings("scenes", self)
        if self.features and not self.graphs:
            raise InputError(
                "[scenes] features are those of the objects of your scene graphs; name them with --graphs"
            )
        if self.features and self.missing == FILLED:
            raise InputError(
                "[scenes] missing = geometry makes objects that have no row in the features of your scene "
                "graphs; leave one of the two out"
            )
