"""hmnet-pipe: multimodal entity and relation extraction with HMNeT on a cache of visual features.

    from hmnet_pipe import FeatureCache, HMNeT, Predictor
    find = Predictor.from_pretrained("runs/twitter2015/models/hmnet/seed-1")
    find("Messi arrives in Paris", image="photo.jpg").entities
    model = HMNeT.from_pretrained("runs/twitter2015/models/hmnet/seed-1")
    cache = FeatureCache("runs/twitter2015/features/pyramid")
    pyramid, view_mask = cache.gather(list(cache)[:8])  # the keys of images, as samples.parquet has them

Importing the package is cheap: nothing heavy (torch, transformers, dask) is loaded until it is needed.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cache.reader import FeatureCache
    from .pipeline.predict.predictor import Predictor
    from .stages.systems.hmnet import HMNeT

__all__ = ["FeatureCache", "HMNeT", "Predictor", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "HMNeT":
        from .stages.systems.hmnet import HMNeT

        return HMNeT
    if name == "FeatureCache":
        from .cache.reader import FeatureCache

        return FeatureCache
    if name == "Predictor":
        from .pipeline.predict.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
