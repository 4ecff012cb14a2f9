"""What the train stage computes: one system on cached features."""

from pathlib import Path

from ...cache.reader import FeatureCache
from ..base.arithmetic import resolve_device
from ..base.tools import SILENT, Counts, Tools
from ..learning.fit import config_of, fit, join, read_data
from ..learning.recipe import TrainingJob
from ..learning.transfer import take_over
from ..systems.build import new_system

__all__ = ["train"]


def train(job: TrainingJob, features: Path | None, tools: Tools) -> Counts:
    """Train one system, keep the model of its best epoch, and score the test split with it.

    features: the folder of the feature cache, or None for a text-only system. All ranks call it; rank 0
    writes. Raises InputError or StageError where the job cannot be done.
    """
    ranks = join(job)
    tools = tools if ranks.leads else SILENT
    cache = FeatureCache(features) if features is not None else None
    spec = cache.spec if cache is not None else None
    data = read_data(job, cache, tools, spec)
    config = config_of(job, data, spec)
    model = new_system(job.encoder, config, data.reader, data.vectors)
    if job.start is not None:
        take_over(model, job.start)
    model.to(resolve_device(job.recipe.device))
    return fit(job, model, data, cache, ranks, tools)
