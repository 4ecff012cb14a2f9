"""What a score depends on, compared with what the model was trained on; features are compared where they are
opened.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...manifests.advice import typed
from ...manifests.errors import InputError, StageError
from ...manifests.files import reason_of
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.trial import Trial
from ..base.tools import Tools
from ..learning.columns import distinct
from ..learning.fit import labels_of
from ..learning.inputs import makers
from ..learning.made_by import CONFIG, SOURCES, made_differently, makers_of, output_digest
from ..learning.metrics import read_metrics
from ..learning.negative import negative_relation
from ..learning.opened import OpenModel
from ..learning.splits import Split
from ..systems.batch import ModelConfig
from ..systems.registry import system_info
from ..text.words import rule_of_record

__all__ = ["check_labels", "check_made", "check_recorded", "check_task", "negative_for"]

# The stages whose other work is refused, and those whose results are compared where they are opened.
_REFUSED, _OPENED = frozenset({"detect"}), frozenset({"extract"})

# The settings of detect that decide which objects there are.
_OF_DETECT = ("detector", "boxes", "min_score", "objects")


def check_recorded(folder: Path) -> None:
    """Raise StageError where a file of the model in `folder` is not as the record of its training says.

    A model outside of a run has no record, and passes.
    """
    folder = folder.resolve()
    models = folder.parent.parent
    kind, prefix = ("finetune", "finetuned-") if folder.name.startswith("finetuned-") else ("train", "")
    trial = Trial.of(folder, prefix)
    if trial is None or models.name != "models":
        return
    name = f"{kind}-{trial.name}"
    record = StageRecord.read(RunFolder(models.parent).record(name))
    recorded = record.outputs if record is not None else {}
    again = f"run `{typed(kind, models.parent, *trial.options.split())}` again"
    for file in ("config.json", "model.safetensors", "backbone.safetensors"):
        if file not in recorded:
            continue
        try:
            digest = output_digest(folder / file)
        except OSError as error:
            raise StageError(f"{folder / file} cannot be read ({reason_of(error)}); {again}") from error
        if digest != recorded[file]:
            raise StageError(
                f"{folder / file} has changed since {name} wrote it: this is not the model that was trained; "
                f"{again}"
            )


def check_made(opened: OpenModel, data: RunFolder, feature_set: str | None, tools: Tools) -> None:
    """Compare how the stages of `data` made what the model reads with how those of its own run did.

    feature_set: the one of `data` that it reads, or None. Raises StageError where the objects of the images
    were found otherwise. Says what else differs, and whose objects nothing is known of.
    """
    info, made = system_info(opened.config.system), opened.config.made_by
    detect = ("detect",) if info.is_visual else ()
    there = makers_of(data, dict.fromkeys((*makers(info, feature_set), *detect)))
    for kind in (name for name in made if name in there):
        if kind in SOURCES:
            _compare_words(opened, made[kind], there[kind], data, tools)
            continue
        decides, rounds = made_differently(made[kind], there[kind])
        if kind in _OPENED:
            decides = []
        what = f"{kind} worked otherwise for {data.path} than for the model in {opened.folder}"
        if kind in _REFUSED and decides:
            raise StageError(
                f"{what} ({'; '.join(decides)}); run `{_detecting(made[kind], data)}` with the weights of "
                "the model's detector, and extract again"
            )
        if decides or rounds:
            tools.say(f"{'warning' if decides else 'note'}: {what} ({'; '.join([*decides, *rounds])})")
    if info.is_visual and "detect" not in made:
        tools.say(
            f"note: {opened.folder / CONFIG} does not say which detector found the objects that the model "
            "was trained on, so it is not compared; a model that is trained now says it"
        )
    elif info.is_visual and "detect" not in there:
        tools.say(
            f"note: which detector found the objects of {data.path} is not recorded, so it is not compared"
        )


def _detecting(made: Mapping[str, Any], data: RunFolder) -> str:
    """Return the command that detects in `data` with the settings of a model's run."""
    settings = {**made["parameters"], **made.get("settings", {})}
    if settings.get("boxes"):  # those of other images are in another file
        settings = {**settings, "boxes": "FILE"}
        del settings["detector"]
    given = [(f"--{name.replace('_', '-')}", settings[name]) for name in _OF_DETECT if settings.get(name)]
    return typed("detect", data.path, *(word for pair in given for word in pair))


def _compare_words(
    opened: OpenModel, made: Mapping[str, Any], record: StageRecord, data: RunFolder, tools: Tools
) -> None:
    """Say where raw texts of `data` become words by another rule than the model's."""
    both = made["parameters"], record.parameters
    if all("format" in parameters for parameters in both):
        model, here = map(rule_of_record, both)
        if model != here:
            tools.say(
                f"note: raw texts of {data.path} become words by the rule {here!r}, and those that the model "
                f"in {opened.folder} was trained on by {model!r}"
            )


def check_task(config: ModelConfig, folder: Path, data: RunFolder, samples: pa.Table, task: str) -> None:
    """Raise InputError where the run `data`, or its samples, are of another task than the model in `folder`.

    task: what run.toml of `data` says; "": not known.
    """
    tasks = {str(data.samples): set(samples.column("task").unique().to_pylist())}
    if task:
        tasks[str(data.config)] = {task}
    for where, found in tasks.items():
        if found - {config.task}:
            raise InputError(
                f"{folder} was trained for task {config.task}, and {where} is of task "
                f"{', '.join(sorted(found))}"
            )


def check_labels(
    config: ModelConfig, folder: Path, split: Split, trained_on: Split | None, tools: Tools
) -> None:
    """Name the labels that the model in `folder` and the data do not have in common.

    trained_on: the training split of the run that the model lies in; None where the data are another run's.
    Raises StageError where its labels are not the model's, or the model has no label of `split`.
    """
    if trained_on is not None and len(trained_on):
        ours, theirs = labels_of(trained_on, config.task), config.labels
        if different := sorted({*ours} ^ {*theirs}):
            raise StageError(
                f"the labels of {folder} are not those of its run's training split: only one of them has "
                f"{', '.join(different)}; train it again"
            )
    gold = distinct(split.gold) - {"O"}
    unknown = sorted(gold - {*config.labels})
    if unknown and not gold & {*config.labels}:
        raise StageError(
            f"{folder} knows none of the labels of the {split.name} split ({', '.join(unknown)}); it was "
            f"trained for {', '.join(config.labels)}"
        )
    if unknown:
        tools.say(
            f"warning: {split.name} holds labels that the model does not know, which can only be missed: "
            f"{', '.join(unknown)}"
        )


def negative_for(config: ModelConfig, folder: Path, samples: pa.Table, given: str) -> str | None:
    """Return the relation that counts as nothing to find in `samples`, or None.

    given: what run.toml of the data names; "": nothing. Raises StageError where the model in `folder` was
    trained with another one.
    """
    if config.task != "re":
        return None
    here = negative_relation(samples.column("relation").unique().to_pylist(), given)
    trained = _trained_with(folder, config)
    if here is not None and trained is not None and here != trained:
        raise StageError(
            f"{folder} was trained with {trained!r} as the negative relation, and here it is {here!r}; set "
            "negative in [prepare] of run.toml, or train it again"
        )
    return trained if here is None else here


def _trained_with(folder: Path, config: ModelConfig) -> str | None:
    """Return the negative relation of a model by its metrics, or by its labels where an earlier version wrote
    them.
    """
    try:
        metrics = read_metrics(folder)
        scores = metrics["test"] or metrics["valid"] or {}
        negative: str | None = scores["negative"]
    except (StageError, KeyError):
        return negative_relation(config.labels)
    return negative
