"""What the finetune stage computes: one end-to-end training, from tables and images to a model's folder."""

from dataclasses import asdict, replace
from pathlib import Path

import torch

from ...cache.spec import FeatureSpec
from ...manifests.errors import StageError
from ...manifests.schemas import OUTCOMES
from ...manifests.tables import table_of, write_table
from ..base.arithmetic import resolve_device
from ..base.tools import SILENT, Counts, Tools
from ..learning.fit import config_of, fit, join, read_data
from ..learning.recipe import TrainingJob
from ..systems.batch import ModelConfig
from ..systems.build import new_system
from ..systems.end_to_end import EndToEnd
from ..systems.folder import load_system
from ..systems.system import System
from ..vision.backbones.build import build_backbone
from ..vision.outcomes import Failures, outcome
from ..vision.pixels import Pixels
from ..vision.plan import ViewPlan
from .settings import FinetuneSettings

__all__ = ["finetune"]


def finetune(
    job: TrainingJob,
    settings: FinetuneSettings,
    plan: ViewPlan,
    start: Path | None,
    outcomes: Path,
    tools: Tools,
) -> Counts:
    """Train one system from pixels. All ranks call it; rank 0 writes.

    plan: the views of every image, and the backbone before it learns. start: the folder of the model to start
    from, or None for the pretrained encoder. outcomes: the table of what happened to each image; one that
    could not be read is a row there. Raises InputError or StageError where the job cannot be done.
    """
    ranks = join(job)
    tools = tools if ranks.leads else SILENT
    spec = plan.spec
    pixels = Pixels(plan.images, transform=spec.transform, views=spec.views, decoders=settings.decoders)
    data = read_data(job, pixels, tools, spec)
    config = config_of(job, data, spec)
    text = _started(start, config) if start is not None else new_system(job.encoder, config, data.reader)
    # From here on it trains as train does: the same head, order and dropout.
    with torch.random.fork_rng(devices=[]):
        backbone = build_backbone(spec.backbone, plan.weights, recompute=settings.recompute)
    model = EndToEnd(
        text,
        backbone,
        spec.pooled,
        unfreeze=settings.unfreeze,
        batch_norm=settings.batch_norm,
        augment=settings.augment,
    )
    model.to(resolve_device(job.recipe.device))
    counts = fit(job, model, data, pixels, ranks, tools)
    failures = {key: failure for part in ranks.gather(pixels.failures) for key, failure in part.items()}
    used = {key for split in data.splits.values() for key in split.image_keys if key in pixels}
    paths = {image.key: image.path for image in plan.images if image.key in failures} if failures else {}
    found = Failures(job.name, len(used))
    for key, failure in failures.items():
        found.add(key, failure, paths[key])
    found.check()
    if ranks.leads:
        rows = [outcome(key, failures.get(key)) for key in sorted(filter(None, used))]
        write_table(outcomes, table_of(OUTCOMES, rows))
    # A model takes up no image later: only another training would, once there is one more to read.
    missed = found.details(outcomes, again="trained again with, once readable")
    return replace(counts, failed=len(found), details={**counts.details, **missed})


def _started(start: Path, config: ModelConfig) -> System:
    """Load the model to start from.

    Raises StageError where it is of another system, or has other labels or features.
    """
    model = load_system(start)
    ours, theirs = ({**asdict(one), "encoder": None, "made_by": None} for one in (config, model.config))
    for one in (ours, theirs):
        if one["features"] is not None:  # how features are stored does not matter here
            one["features"] = replace(FeatureSpec.from_json(one["features"]), dtype="")
    if different := [name for name in ours if ours[name] != theirs[name]]:
        name = different[0]
        raise StageError(
            f"{start} was trained with {name} {theirs[name]!r}, and here it is {ours[name]!r}; "
            "train it again with these settings"
        )
    return model
