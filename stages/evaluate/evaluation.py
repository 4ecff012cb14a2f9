"""Scoring a trained model on a split of its own run or another's, with, with shuffled or without images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...manifests.errors import InputError
from ...manifests.files import write_text
from ...manifests.run import RunFolder
from ...manifests.schemas import SAMPLES
from ...manifests.tables import read_table, write_table
from ..base.tools import SILENT, Tools
from ..learning.batches import Visuals
from ..learning.calibration import Judged, found_in, judged_in, keep_temperature
from ..learning.columns import COLUMNS, Column
from ..learning.errors import error_report, errors_markdown, errors_of
from ..learning.explanations import explanations_table
from ..learning.inputs import open_extras
from ..learning.opened import OpenModel, open_model, open_visuals
from ..learning.predictions import of_all_words, predict_split, predictions_table, score_split
from ..learning.scores import Scores
from ..learning.splits import Split, encode_split, read_split, shuffled_images, without_images
from ..systems.batch import ModelConfig
from ..systems.registry import system_info
from ..vision.plan import ViewPlan
from .comparison import check_labels, check_made, check_recorded, check_task, negative_for
from .grounding import check_boxes, grounding_of
from .recorded import Evaluation, causes_of, evaluation_name, fresh_evaluation

__all__ = ["evaluate"]


def evaluate(
    folder: Path,
    data: RunFolder,
    *,
    split: str = "test",
    shuffle_images: bool = False,
    shuffle_seed: int = 0,
    no_images: bool = False,
    explain: bool = False,
    calibrate: bool = False,
    keep: bool = False,
    ground: bool | None = False,
    plan: ViewPlan | None = None,
    feature_set: str = "",
    task: str = "",
    negative: str = "",
    device: str = "auto",
    precision: str = "auto",
    tools: Tools = SILENT,
) -> tuple[Scores, Path]:
    """Score the model in `folder` on a split of the run `data`.

    Return the scores and the file that holds them.

    The scores and the predictions go into the model's folder as evaluation-<split>[-shuffled].json and
    .parquet (with `no_images`, which takes all images away, -without-images), what is wrong in them as
    errors-<name>.parquet and .md, and with `explain` what the model looked at as explanation-<name>.parquet.
    The scores hold what kinds of errors there are, as "errors" (see stages.learning.errors). With `calibrate`
    the scores hold how far the model's probabilities can be trusted, as "calibration" (see
    stages.learning.calibration), with a temperature fitted on the validation split of `data`; `keep` writes
    it into the model's folder. With `ground` they hold how often the model looks at the right view of a
    mention, as "grounding" (see stages.evaluate.grounding); None: null where it cannot be said, for a system
    that reads images. A model that finetune made sees pixels: it needs `plan`, the views that extract would
    see of `data`. feature_set: the one of `data` that another model reads; "": that of its system. task and
    negative: what run.toml of `data` says; "": not known.

    Raises InputError where the split has no sample or the samples are of another task, or where there is no
    temperature to keep, or nothing to ground, and StageError where features, boxes or labels are not those
    that the model was trained on, or its files have changed since.
    """
    own = data.path.resolve() in folder.resolve().parents
    check_recorded(folder)
    opened = open_model(folder, device=device, precision=precision)
    samples = read_table(data.samples, SAMPLES, "prepare", [*COLUMNS, "task"])
    check_task(opened.config, folder, data, samples, task)
    chosen = _read(opened, data, samples, split, own, tools)
    counted_out = negative_for(opened.config, folder, samples, negative)
    info = system_info(opened.config.system)
    if not info.is_visual and (shuffle_images or no_images or explain or ground):
        seen = explain or ground
        what = "there is no gate and no attention to explain" if seen else "they change nothing"
        raise InputError(f"{opened.config.system} reads no images: {what}")
    if ground:
        check_boxes(opened.config, data)
        if shuffle_images or no_images:
            raise InputError("boxes of mentions are of the samples' own images; ground them with these")
    read = info.feature_set(feature_set)
    visuals = open_visuals(opened, data, plan, read)
    check_made(opened, data, None if opened.from_pixels else read, tools)
    config = opened.config
    extras = open_extras(info, data, config.options, opened.reader, config.max_length)
    chosen = replace(chosen, extras=extras)
    if shuffle_images:
        chosen = shuffled_images(chosen, shuffle_seed)
    if no_images:
        chosen = without_images(chosen)
    valid = replace(_encoded(opened, samples, "valid"), extras=extras) if calibrate else None
    del samples  # the splits have what they need of it
    explained = _explain(opened, chosen, visuals, tools) if explain or ground is not False else None
    grounded = {}
    if ground is not False and explained is not None:
        grounded = {"grounding": _grounded(config, explained, data, asked=ground is True)}
    judged: Judged | None = None
    if valid is not None:
        judged, predicted = _judged(opened, chosen, valid, visuals, tools)
        if keep and judged.temperature is None:
            raise InputError(
                f"{data.samples} has no valid split whose labels the model knows: no temperature can be kept"
            )
        predicted = of_all_words(chosen, predicted)
    else:
        predicted = _predict(opened, chosen, visuals, tools)
    predictions = predictions_table(chosen, predicted, visuals)
    # From here on in place of the lists, which take three times as much.
    labels: Column[list[str]] = Column(predictions["predicted"], [])
    del predicted
    scores = score_split(chosen, labels, config.task, counted_out)
    sure = judged.probabilities(labels, config.task) if judged is not None else None
    errors = errors_of(predictions, config.task, counted_out, sure)
    scores["errors"] = error_report(predictions, config.task, counted_out)
    scores |= grounded
    if judged is not None:
        scores["calibration"] = judged.report(tools)
        if keep:
            keep_temperature(folder, scores["calibration"])
    other = None if own else data.path.resolve().name
    name = evaluation_name(split, shuffled_images=shuffle_images, without_images=no_images, other_run=other)
    causes = (folder, info.name, data, read, opened.precision, negative)
    made_from = {} if opened.from_pixels else causes_of(*causes)
    evaluation = Evaluation(config.system, split, shuffle_images, scores, made_from, no_images)
    return scores, _write(folder, name, evaluation, predictions, errors, explained if explain else None)


def _read(
    opened: OpenModel, data: RunFolder, samples: pa.Table, split: str, own: bool, tools: Tools
) -> Split:
    """Encode the samples of a split.

    Raises InputError where it has none, and StageError where their labels are not the model's.
    """
    chosen = _encoded(opened, samples, split)
    if not len(chosen):
        there = ", ".join(sorted(set(samples.column("split").to_pylist())))
        raise InputError(f"{data.samples} has no {split} split; it has {there}")
    trained_on = read_split(samples, "train", task=opened.config.task) if own else None
    check_labels(opened.config, opened.folder, chosen, trained_on, tools)
    return chosen


def _encoded(opened: OpenModel, samples: pa.Table, name: str) -> Split:
    config = opened.config
    return encode_split(samples, name, opened.reader, task=config.task, max_length=config.max_length)


def _judged(
    opened: OpenModel, chosen: Split, valid: Split, visuals: Visuals | None, tools: Tools
) -> tuple[Judged, list[list[str]]]:
    """Return how sure the model is of what it finds, with a temperature of `valid`, and what it finds."""
    how: dict[str, Any] = {"visuals": visuals, "pad_id": opened.reader.pad_id, "tools": tools}
    how["precision"] = opened.precision
    fitted_on = found_in(opened.model, valid, **how) if len(valid) else None
    return judged_in(opened.model, chosen, fitted_on, **how)


def _predict(opened: OpenModel, split: Split, visuals: Visuals | None, tools: Tools) -> list[list[str]]:
    pad_id = opened.reader.pad_id
    return predict_split(
        opened.model, split, visuals=visuals, pad_id=pad_id, precision=opened.precision, tools=tools
    )


def _explain(opened: OpenModel, split: Split, visuals: Visuals | None, tools: Tools) -> pa.Table:
    pad_id = opened.reader.pad_id
    return explanations_table(
        opened.model, split, visuals=visuals, pad_id=pad_id, precision=opened.precision, tools=tools
    )


def _grounded(
    config: ModelConfig, explained: pa.Table, data: RunFolder, *, asked: bool
) -> dict[str, Any] | None:
    """Return how well the model's attention is grounded.

    Raises InputError where that cannot be said, or returns None where nobody asked.
    """
    try:
        return grounding_of(config, explained, data)
    except InputError:
        if asked:
            raise
        return None


def _write(
    folder: Path,
    name: str,
    evaluation: Evaluation,
    predictions: pa.Table,
    errors: pa.Table,
    explained: pa.Table | None,
) -> Path:
    """Write the tables, and the scores last. Return the file of the scores."""
    path = folder / f"evaluation-{name}.json"
    title = f"Errors of {evaluation.system} on {name}"
    write_text(folder / f"errors-{name}.md", errors_markdown(title, evaluation.scores["errors"], errors))
    write_table(folder / f"errors-{name}.parquet", errors)
    explanation = folder / f"explanation-{name}.parquet"
    if explained is not None:
        write_table(explanation, explained)
    elif fresh_evaluation(path, evaluation.made_from, any_precision=True) is None:
        explanation.unlink(missing_ok=True)  # it is of another model
    write_table(folder / f"evaluation-{name}.parquet", predictions)
    evaluation.write(path)
    return path
