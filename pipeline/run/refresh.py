"""`hmnet-pipe finetune --refresh`: the features of a fine-tuned backbone, beside the old ones, as a run.

Such a run has the same samples, images and boxes, and differs only in [extract]'s weights: every command
works on it. The detections are reused.
"""

import shutil

from ...manifests.files import make_folder
from ...manifests.run import RunFolder
from ...manifests.trial import Trial
from ...stages.base.tools import Tools
from ...stages.systems.registry import BACKBONE_FILE
from .config import RunConfig
from .runner import Report, run_stage

__all__ = ["refresh_features"]


def refresh_features(config: RunConfig, run: RunFolder, trial: Trial, tools: Tools) -> Report:
    """Make or update the run that holds the features of finetune's backbone.

    Raises StageError where detect has not run.
    """
    new = RunFolder(run.refreshed(trial))
    make_folder(new.path / "stages")
    tables = [
        run.samples,
        run.images,
        run.problems,
        run.mention_boxes,
        run.detections,
        run.outcomes("detect"),
        run.record("prepare"),
        run.record("detect"),
    ]
    for path in tables:
        if path.is_file():
            shutil.copy2(path, new.path / path.relative_to(run.path))
    weights = str((run.finetuned(trial) / BACKBONE_FILE).resolve())
    refreshed = config.override("extract", {"weights": weights})
    refreshed.write(new.config)
    return run_stage(refreshed.stage("extract", new), tools)
