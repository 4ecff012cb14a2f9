"""What the train stage computes: one system on cached features."""

from ...cache.reader import FeatureCache
from ..base.arithmetic import resolve_device
from ..base.tools import SILENT, Counts, Tools
from ..learning.fit import config_of, fit, join, read_data
from ..systems.hmnet import HMNeT
from ..text.encoders.files import resolve_encoder
from .stage import Train

__all__ = ["train"]


def train(stage: Train, tools: Tools) -> Counts:
    """Train one system, keep the model of its best epoch, and score the test split with it. All ranks call it; rank 0 writes."""
    ranks = join(stage)
    tools = tools if ranks.leads else SILENT
    cache = FeatureCache(stage.run.features) if stage.visual else None
    data = read_data(stage, stage.settings, cache, tools)
    spec = cache.spec if cache is not None else None
    model = HMNeT.from_encoder(resolve_encoder(stage.settings.encoder), config_of(stage, data, spec)).to(
        resolve_device(stage.settings.device)
    )
    return fit(stage, stage.settings, stage.settings.rates, model, data, cache, ranks, tools)
