"""What a report shows of a run: gathered from what its stages and evaluations have left, or asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from ...manifests.advice import typed
from ...manifests.errors import HmnetPipeError, InputError, StageError
from ...manifests.run import RunFolder
from ...manifests.schemas import ERRORS, PREDICTIONS, SAMPLES
from ...manifests.tables import read_table
from ...manifests.trial import Trial
from ...stages.base.tools import SILENT, Tools
from ...stages.evaluate.cases import resolved
from ...stages.evaluate.recorded import Evaluation
from ...stages.learning.columns import COLUMNS
from ...stages.learning.errors import KINDS, error_report, errors_of
from ...stages.systems.registry import system_info
from ..run.config import RunConfig
from ..run.trainings import (
    Setting,
    differences,
    finished_trainings,
    folder_of,
    setting_of,
    settings_of,
    trial_of,
)
from .data import Calibrated, Errors, ErrorSample, GroupUse, ImageUse, RunReport, ScoreRow, Story
from .evaluations import evaluated
from .facts import data_facts, provenance
from .inside import curves, mean_gates
from .text import notes_on, scored_splits

__all__ = ["Asked", "gather"]

T = TypeVar("T")
Metrics = Mapping[str, Any]

# Systems on text alone that others are compared with, where there are several.
_TEXT_ALONE = ("bert-crf", "mtb")
_SHOWN = "hmnet"
_ERRORS_OF_A_KIND = 12
_SCORES = ("precision", "recall", "f1")


@dataclass(frozen=True)
class Asked:
    """What a report is asked for.

    system, seed: the training that is looked into; "" and None: hmnet, or the best that reads images, and
    its first seed. against: the system that others are compared with; "": one on text alone. cases: ids of
    samples that are shown besides. images, texts: whether photos and texts of samples are shown. recorded:
    nothing is computed that was not before.
    """

    system: str = ""
    seed: int | None = None
    against: str = ""
    cases: tuple[str, ...] = ()
    images: bool = True
    texts: bool = True
    recorded: bool = False


@dataclass(frozen=True)
class _Part:
    """What every part of a run's report is made from.

    cases: the ids of samples that are shown besides. base: the setting on text alone, or None.
    """

    run: RunFolder
    asked: Asked
    cases: list[str]
    task: str
    split: str
    settings: tuple[Setting, ...]
    shown: Metrics
    base: Setting | None
    why: dict[str, str]
    tools: Tools

    @property
    def negative(self) -> str | None:
        return (self.shown[self.split] or {}).get("negative")

    def told(self, part: str, make: Callable[[], T]) -> T | None:
        """Return what `make` does, or None, with the reason kept where it cannot be made."""
        try:
            return make()
        except (HmnetPipeError, OSError) as error:
            self.why[part] = str(error)
            return None

    def predictions(self, metrics: Metrics) -> pa.Table:
        """Return the predictions of a training on the split. Raises StageError where there are none."""
        folder = folder_of(self.run, metrics)
        options = trial_of(metrics).options
        if self.split == "test":
            return read_table(folder / "predictions.parquet", PREDICTIONS, f"train {options}")
        made_by = f"evaluate {options} --split {self.split}"
        return read_table(folder / f"evaluation-{self.split}.parquet", PREDICTIONS, made_by)


def gather(run: RunFolder, asked: Asked, lock: str | HmnetPipeError, tools: Tools = SILENT) -> RunReport:
    """Return what is shown of a run.

    lock: the text of its lock, or why it has none. Raises StageError where the run holds no finished
    training, and InputError where what is asked for is not there. What else is missing is left out, with its
    reason.
    """
    config = RunConfig.read(run.config)
    metrics = finished_trainings(run)
    samples = read_table(run.samples, SAMPLES, "prepare", COLUMNS)
    split = "test" if all(one["test"] is not None for one in metrics) else "valid"
    settings = tuple(settings_of(metrics))
    if all("given" in one for one in metrics):
        raise StageError(f"{run.path} holds no finished training; run `{typed('train', run.path)}` first")
    shown, base = _shown(settings, asked, run), _base(settings, asked, run)
    cases = resolved(samples, split, asked.cases)
    part = _Part(run, asked, cases, config.task, split, settings, shown, base, {}, tools)
    trial = trial_of(shown)

    def in_depth() -> tuple[Evaluation, Path]:
        return evaluated(run, trial, split, in_depth=True, recorded=asked.recorded, tools=tools)

    found = part.told("evaluation", in_depth)
    scores = found[0].scores if found is not None else {}
    errors = part.told("errors", lambda: _errors(part, found))
    looked = part.told("cases", lambda: _looked(part, samples, found))
    return RunReport(
        name=str(run.path),
        task=config.task,
        split=split,
        shown=trial.title,
        setting=setting_of(shown),
        against=base.name if base is not None else None,
        rows=tuple(_rows(part)),
        types={name: row["support"] for name, row in (shown[split] or {}).get("per_type", {}).items()},
        notes=tuple(notes_on(scored_splits(metrics))),
        uses=tuple(_uses(part)),
        kinds=tuple(_kinds(part)),
        errors=errors,
        stories=looked[0] if looked is not None else (),
        gates=mean_gates(found[1]) if found is not None else None,
        curves=tuple(curve for one in metrics for curve in curves(run, one)),
        calibrated=Calibrated(trial.title, scores["calibration"]) if "calibration" in scores else None,
        grounding=scores.get("grounding"),
        counts=tuple(_counts(errors)) if errors is not None else (),
        data=replace(
            data_facts(run, samples, config.task), truncated=looked[1] if looked is not None else None
        ),
        provenance=provenance(run, config, lock),
        why=part.why,
    )


def _counts(errors: Errors) -> Iterator[tuple[str, int, int]]:
    """Yield each type, how many the gold has of it, and how many were predicted."""
    confusion = errors.report["confusion"]  # its last row and column are of what is not there
    for number, name in enumerate(confusion["types"]):
        counts = confusion["counts"]
        yield name, sum(counts[number]), sum(line[number] for line in counts)


def _shown(settings: Sequence[Setting], asked: Asked, run: RunFolder) -> Metrics:
    """Return the training that is looked into.

    Raises InputError where the one that is asked for is not there.
    """
    if asked.system:
        wanted = [one for one in settings if one.system == asked.system and not one.is_given]
        if not wanted:
            raise InputError(f"--system {asked.system}: {run.path} holds no finished training of it")
        setting = wanted[0]
    else:
        trained = [one for one in settings if not one.is_given]
        plain = [one for one in trained if _is_full(one)] or trained
        visual = [one for one in plain if _is_visual(one)] or plain
        setting = max(visual, key=lambda one: (one.system == _SHOWN, _valid(one)))
    if asked.seed is None:
        return setting.first
    of_seed = [one for one in setting.trainings if one["seed"] == asked.seed]
    if not of_seed:
        seeds = ", ".join(sorted({str(one["seed"]) for one in setting.trainings}))
        raise InputError(f"--seed {asked.seed}: {setting.name} of {run.path} has seeds {seeds}")
    return of_seed[0]


def _base(settings: Sequence[Setting], asked: Asked, run: RunFolder) -> Setting | None:
    """Return the setting that others are compared with: the one asked for, or one on text alone, or None."""
    if asked.against:
        wanted = [one for one in settings if one.system == asked.against]
        if not wanted:
            raise InputError(f"--against {asked.against}: {run.path} holds no finished training of it")
        return wanted[0]
    plain = [one for one in settings if _is_full(one) and not _is_visual(one)]
    return max(plain, key=lambda one: (one.system in _TEXT_ALONE, _valid(one)), default=None)


def _is_visual(setting: Setting) -> bool:
    """Return whether a setting reads images; of predictions that were given, that is not known, and False."""
    return not setting.is_given and system_info(setting.system).is_visual


def _is_full(setting: Setting) -> bool:
    """Return whether a setting was trained here, and on all samples."""
    return not setting.is_given and not {"shots", "percent"} & setting.first.keys()


def _valid(setting: Setting) -> float:
    found = setting.spread("valid")
    return -1.0 if found is None else found.mean


def _rows(part: _Part) -> Iterator[ScoreRow]:
    tested: Mapping[str, Mapping[str, Any]] = {}
    base = part.base
    if base is not None and part.split == "test" and len(part.settings) > 1:
        # Of several settings of a system the first that is given is what others are compared with.
        ordered = [base, *(one for one in part.settings if one is not base)]
        trained, system = [one for each in ordered for one in each.trainings], base.system
        tested = part.told("differences", lambda: differences(part.run, trained, system)) or {}
    spreads = [{score: each.spread(part.split, score) for score in _SCORES} for each in part.settings]
    tops = {
        score: max((round(found.mean, 4) for one in spreads if (found := one[score])), default=None)
        for score in _SCORES
    }
    for setting, own in zip(part.settings, spreads, strict=True):
        scored = [one[part.split] for one in setting.trainings if one[part.split] is not None]
        types = sorted({name for one in scored for name in one.get("per_type", {})})
        best = {score for score, one in own.items() if one is not None and round(one.mean, 4) == tops[score]}
        per_type = {name: setting.spread(part.split, within=("per_type", name)) for name in types}
        yield ScoreRow(
            name=setting.name,
            system=setting.system,
            is_visual=_is_visual(setting),
            trainings=len(setting.trainings),
            scores={**own, "valid_f1": setting.spread("valid")},
            each=tuple(one["f1"] for one in scored),
            best=frozenset(best if len(part.settings) > 1 else ()),
            difference=tested.get(setting.name),
            per_type={name: one for name, one in per_type.items() if one is not None},
        )


def _uses(part: _Part) -> Iterator[ImageUse]:
    """Yield what each setting's first training makes of the images; those on text alone as they are."""
    for setting in part.settings:
        trial, as_is = trial_of(setting.first), setting.first[part.split]
        if as_is is None or (not _is_visual(setting) and setting is not part.base):
            continue
        shuffled, without = (
            _with_changed_images(part, trial, **change) if _is_visual(setting) else None
            for change in ({"shuffle_images": True}, {"no_images": True})
        )
        groups = [("all", as_is), *as_is.get("per_group", {}).items()]
        yield ImageUse(
            setting.name,
            trial.title,
            _is_visual(setting),
            tuple(
                GroupUse(
                    group,
                    row["support"],
                    row["f1"],
                    _of_group(shuffled, group),
                    _of_group(without, group),
                )
                for group, row in groups
            ),
        )


def _with_changed_images(part: _Part, trial: Trial, **change: bool) -> Mapping[str, Any] | None:
    """Return the scores of a trial with its images shuffled or gone."""
    recorded, tools = part.asked.recorded, part.tools
    found = part.told(
        "uses", lambda: evaluated(part.run, trial, part.split, recorded=recorded, tools=tools, **change)
    )
    return found[0].scores if found is not None else None


def _of_group(scores: Mapping[str, Any] | None, group: str) -> float | None:
    if scores is None:
        return None
    found = scores if group == "all" else scores["per_group"].get(group)
    return None if found is None else float(found["f1"])


def _kinds(part: _Part) -> Iterator[tuple[str, Mapping[str, int]]]:
    """Yield how many errors of each kind each setting's first training makes."""
    for setting in part.settings:
        try:
            predictions = part.predictions(setting.first)
        except StageError:
            continue
        yield setting.name, error_report(predictions, part.task, part.negative)["kinds"]


def _errors(part: _Part, found: tuple[Evaluation, Path] | None) -> Errors:
    """Return the errors of the training that is looked into, with probabilities where they are known."""
    trial = trial_of(part.shown)
    if found is None:
        predictions = part.predictions(part.shown)
        report = error_report(predictions, part.task, part.negative)
        rows, file = errors_of(predictions, part.task, part.negative), ""
    else:
        path = found[1].with_name(f"errors-{part.split}.parquet")
        report, file = found[0].scores["errors"], str(path)
        rows = read_table(path, ERRORS, f"evaluate {trial.options} --split {part.split}")
    samples: dict[str, tuple[ErrorSample, ...]] = {}
    for kind in KINDS[1:]:
        places = pc.indices_nonzero(pc.equal(rows["kind"], kind))[:_ERRORS_OF_A_KIND]
        samples[kind] = tuple(_sample(row, part.asked.texts) for row in rows.take(places).to_pylist())
    return Errors(trial.title, report, {kind: some for kind, some in samples.items() if some}, file)


def _looked(
    part: _Part, samples: pa.Table, found: tuple[Evaluation, Path] | None
) -> tuple[tuple[Story, ...], Mapping[str, int] | None]:
    """Return the cases, and how many texts of each split the model reads in part, None: not known."""
    from .cases import Compared, stories

    if found is None:
        raise StageError(part.why["evaluation"])
    trial, path = trial_of(part.shown), found[1]
    made_by = f"evaluate {trial.options} --split {part.split}"
    same = part.base is not None and part.base.system == trial.system
    if part.base is not None and not same and part.split == "test":
        pool = part.base.trainings
        other = next((one for one in pool if one["seed"] == part.shown["seed"]), pool[0])
        against, title = part.predictions(other), trial_of(other).title
    elif system_info(trial.system).is_visual:
        recorded, tools = part.asked.recorded, part.tools
        without = evaluated(part.run, trial, part.split, no_images=True, recorded=recorded, tools=tools)[1]
        against = read_table(without.with_suffix(".parquet"), PREDICTIONS, f"{made_by} --no-images")
        title = f"{trial.title} without images"
    else:
        raise StageError(f"there is nothing to compare {trial.title} with; train another system")
    compared = Compared(
        part.run,
        trial,
        part.split,
        part.task,
        part.negative,
        read_table(path.with_suffix(".parquet"), PREDICTIONS, made_by),
        against,
        title,
        read_table(path.with_name(f"errors-{part.split}.parquet"), ERRORS, made_by),
        found[0].made_from,
    )
    asked = part.asked
    return stories(
        compared,
        samples,
        part.cases,
        images=asked.images,
        texts=asked.texts,
        recorded=asked.recorded,
    )


def _sample(row: Mapping[str, Any], texts: bool) -> ErrorSample:
    words = {
        which: " ".join(row["tokens"][slice(*row[f"{which}_words"])])
        if row[f"{which}_words"] is not None and texts
        else ""
        for which in ("gold", "predicted")
    }
    return ErrorSample(
        row["id"],
        row["gold_type"],
        words["gold"],
        row["predicted_type"],
        words["predicted"],
        row["probability"],
        " ".join(row["tokens"]) if texts else None,
    )
