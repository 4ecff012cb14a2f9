"""`hmnet-pipe evaluate`: score a trial of a run, on its own or another run's data, with its settings."""

from pathlib import Path
from typing import Any

from ...manifests.advice import typed
from ...manifests.errors import InputError
from ...manifests.run import RunFolder
from ...manifests.trial import PRETRAINED, Trial
from ...stages.base.tools import SILENT, Tools
from ...stages.finetune.settings import FinetuneSettings
from ...stages.learning.recipe import TrainSettings
from ...stages.prepare.settings import PrepareSettings
from .config import RunConfig
from .graph import view_source

__all__ = ["evaluate_trial", "finetuned_model"]


def evaluate_trial(
    run: RunFolder,
    trial: Trial,
    data: RunFolder,
    *,
    finetuned: bool = False,
    split: str = "test",
    shuffle_images: bool = False,
    no_images: bool = False,
    explain: bool = False,
    calibrate: bool = False,
    keep: bool = False,
    ground: bool | None = False,
    tools: Tools = SILENT,
) -> tuple[dict[str, Any], Path]:
    """Score the model of a trial on a split of the run `data`; return the scores and their file.

    finetuned: score the model that finetune made, on the views that extract would see of `data`. calibrate,
    keep and ground: see stages.evaluate.evaluation. Raises InputError or StageError where it cannot be
    scored; see there.
    """
    from ...stages.evaluate.evaluation import evaluate

    config = RunConfig.read(run.config)
    recipe = config.of(TrainSettings)
    scored = RunConfig.read(data.config)
    plan = view_source(scored, data, trial.features).plan() if finetuned else None
    folder = finetuned_model(run, trial) if finetuned else run.model(trial)
    if not folder.is_dir():
        train = typed("train", run.path, *trial.options.split())
        raise InputError(f"{folder} does not exist; run `{train}` first")
    return evaluate(
        folder,
        data,
        split=split,
        shuffle_images=shuffle_images,
        no_images=no_images,
        explain=explain,
        calibrate=calibrate,
        keep=keep,
        ground=ground,
        plan=plan,
        feature_set=trial.features,
        task=scored.task,
        negative=scored.of(PrepareSettings).negative,
        device=recipe.device,
        precision=recipe.precision,
        tools=tools,
    )


def finetuned_model(run: RunFolder, trial: Trial) -> Path:
    """Return the folder of the fine-tuned model that differs from `trial` only in its start.

    If there are several, it is the one that [finetune] names. Raises InputError where there is none.
    """
    found = {
        other.start: path
        for path in run.models.glob(f"{trial.system}/finetuned-*")
        if (other := Trial.of(path, "finetuned-")) is not None and other.trained == trial
    }
    if not found:
        raise InputError(
            f"{run.finetuned(trial)} does not exist, nor does the same from another start; "
            f"run `{typed('finetune', run.path, *trial.options.split())}` first"
        )
    if len(found) == 1:
        return next(iter(found.values()))
    token = RunConfig.read(run.config).of(FinetuneSettings).token()
    return found.get(token) or found.get(PRETRAINED) or next(iter(found.values()))
