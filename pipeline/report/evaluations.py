"""The evaluations that a report shows: those that are recorded, and where they are missing, made."""

from pathlib import Path

from ...manifests.advice import typed
from ...manifests.errors import StageError
from ...manifests.run import RunFolder
from ...manifests.trial import Trial
from ...stages.base.tools import Tools
from ...stages.evaluate.recorded import Evaluation, causes_of, evaluation_name, fresh_evaluation
from ...stages.prepare.settings import PrepareSettings
from ...stages.systems.registry import system_info
from ..run.config import RunConfig
from ..run.evaluate import evaluate_trial

__all__ = ["evaluated"]


def evaluated(
    run: RunFolder,
    trial: Trial,
    split: str,
    *,
    shuffle_images: bool = False,
    no_images: bool = False,
    in_depth: bool = False,
    recorded: bool = False,
    tools: Tools,
) -> tuple[Evaluation, Path]:
    """Return an evaluation of a trial on its own run, and the file that holds it.

    in_depth: with the calibration, and for a system that reads images with what it looked at, compared with
    the boxes of mentions where there are any. recorded: only what is there and up to date. Raises StageError,
    which names the command, where it is not, and as `evaluate_trial` does.
    """
    folder, info = run.model(trial), system_info(trial.system)
    name = evaluation_name(split, shuffled_images=shuffle_images, without_images=no_images)
    path = folder / f"evaluation-{name}.json"
    negative = RunConfig.read(run.config).of(PrepareSettings).negative
    causes = causes_of(folder, trial.system, run, info.feature_set(trial.features), "", negative)
    found = fresh_evaluation(path, causes, any_precision=True)
    explain = in_depth and info.is_visual
    ground = explain and run.mention_boxes.is_file()
    needed = [path.with_suffix(".parquet"), folder / f"errors-{name}.parquet"]
    needed += [folder / f"explanation-{name}.parquet"] if explain else []
    if (
        found is not None
        and "errors" in found.scores
        and (not in_depth or "calibration" in found.scores)
        and (not ground or "grounding" in found.scores)
        and all(file.is_file() for file in needed)
    ):
        return found, path
    if recorded:
        options = [*trial.options.split(), *(["--split", split] if split != "test" else [])]
        options += ["--shuffle-images"] * shuffle_images + ["--no-images"] * no_images
        options += (["--calibrate"] + ["--explain"] * explain) if in_depth else []
        raise StageError(f"{trial.title} was not evaluated; run `{typed('evaluate', run.path, *options)}`")
    evaluate_trial(
        run,
        trial,
        run,
        split=split,
        shuffle_images=shuffle_images,
        no_images=no_images,
        explain=explain,
        calibrate=in_depth,
        ground=None if ground else False,
        tools=tools,
    )
    return Evaluation.read(path), path
