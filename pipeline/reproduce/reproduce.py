"""`hmnet-pipe reproduce`: make the run of a lock again from the data, and compare field by field.

Data and weights are compared before anything is computed. A number that differs is a failure, unless the
machine, the versions or the precision differ too: then rounding is to be expected, and its size is reported
instead (docs/reproducibility.md).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ...manifests.errors import InputError, StageError, WeightsError, unknown_name
from ...manifests.files import read_text, write_text
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import SPLITS
from ...stages.base.stage import Stage
from ...stages.base.tools import Tools, counted
from ...stages.learning.causes import start_token, token_of
from ...stages.prepare.readers import find_texts, open_texts, samples_of
from ...stages.prepare.settings import PrepareSettings
from ..run.config import RunConfig
from ..run.graph import stage_named, with_before
from ..run.runner import Report, run_stage
from .lock import data_facts, environment_of, read_lock
from .outside import outside_of, put_options

__all__ = ["F1_TOLERANCE", "Comparison", "Reproduction", "reproduce"]

# The largest difference in F1 that rounding elsewhere may explain, on a test set of some thousand samples: a
# training amplifies its last bits to about the effect of another seed.
F1_TOLERANCE = 0.02
# Parameters that are arithmetic, not method.
_ARITHMETIC = ("precision", "device")
# Outputs that follow from parameters, data and weights, which are compared, and also say where something lay:
# a model's description its encoder, and rows of refused records the user's file and line.
_WITH_PLACES = {
    "config.json": "the model is described differently, for example the encoder's path",
    "problems": "other rows of what was refused, for example the path of the file",
}
_Difference = tuple[str, Any, Any]  # name, value in the lock, value here
_COPY = "reproduces.lock"
_REPORT = "reproduction.json"


@dataclass(frozen=True)
class Comparison:
    """One thing that was compared.

    state: "equal", "noted" (differs, which is no failure in itself), "rounding" (a result that differs where
    the arithmetic does), or "different" (not reproduced).
    """

    group: str
    what: str
    state: Literal["equal", "noted", "rounding", "different"]
    text: str = ""


@dataclass
class Reproduction:
    """The result of a reproduction.

    complete: whether every stage of the lock was run; otherwise data or weights differed and nothing more was
    computed.
    """

    lock: str
    run: str
    tolerance: float
    complete: bool = False
    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def different(self) -> list[Comparison]:
        return [comparison for comparison in self.comparisons if comparison.state == "different"]

    @property
    def reproduced(self) -> bool:
        return self.complete and not self.different

    def to_json(self) -> dict[str, Any]:
        return {"reproduced": self.reproduced, **asdict(self)}

    def lines(self) -> list[str]:
        width = max(len(f"{comparison.group}: {comparison.what}") for comparison in self.comparisons)
        rows = [
            f"  {comparison.state:<9}  {f'{comparison.group}: {comparison.what}':<{width}}  {comparison.text}"
            for comparison in self.comparisons
        ]
        return [*(row.rstrip() for row in rows), self._verdict()]

    def _verdict(self) -> str:
        if not self.complete:
            return (
                f"reproduce: NOT reproduced; {self.different[0].group} other than the lock's, "
                "so nothing more was computed"
            )
        if self.different:
            return (
                f"reproduce: NOT reproduced; {len(self.different)} of "
                f"{counted(len(self.comparisons), 'comparisons')} differ -> {self.run}"
            )
        if any(comparison.state == "rounding" for comparison in self.comparisons):
            return f"reproduce: reproduced but for rounding, every F1 within {self.tolerance} -> {self.run}"
        return f"reproduce: reproduced, every result is equal -> {self.run}"


def reproduce(
    lock: Path,
    run: RunFolder,
    *,
    text: Path,
    images: Path | None,
    tools: Tools,
    tolerance: float = F1_TOLERANCE,
    report: Callable[[Report], None] = lambda report: None,
    only: str = "",
    starts: Sequence[Path] = (),
    **outside: str | None,
) -> Reproduction:
    """Make the run of `lock` again in `run`, and compare.

    `run` must be new or an interrupted reproduction of the same lock. outside: weights and files of this
    machine, by the names in outside.OPTIONS; None: the one that the lock names. only: the name of one
    training, which is made with what it reads and nothing else. starts: folders of the models that trainings
    start from. The outcome is also written to reproduction.json in its folder. Raises StageError where `run`
    is something else, and WeightsError or InputError where one from outside is not available.
    """
    wanted = read_lock(lock)
    config = _configuration(wanted, lock, text, images, outside)
    config = replace(config, starts={start_token(path): str(path.absolute()) for path in starts})
    _check_folder(run, lock)
    if only:
        wanted = {**wanted, "stages": _with_what_it_reads(only, wanted["stages"], config, run)}
    _check_starts(wanted["stages"], config)
    result = Reproduction(lock.name, str(run.path), tolerance)
    result.comparisons += [*_compare_texts(wanted, config), *_compare_outside(wanted, config)]
    write_text(run.path / _COPY, read_text(lock))
    try:
        if not result.different:
            _compute(wanted, config, run, tools, report, result)
    finally:
        write_text(run.path / _REPORT, json.dumps(result.to_json(), indent=2) + "\n")
    return result


def _with_what_it_reads(
    name: str, stages: Mapping[str, Any], config: RunConfig, run: RunFolder
) -> dict[str, Any]:
    """Return the training of a lock that has this name, and the stages that make what it reads.

    Raises InputError where the lock has none of the name.
    """
    trainings = {
        known: stage
        for stage in stages
        if stage_named(config, run, stage).repeats_whole
        for known in (stage, stage.split("-", 1)[1])
    }
    if name not in trainings:
        raise unknown_name("--only", name, [known for known in trainings if known not in stages])
    wanted = with_before(config, run, [trainings[name]])
    return {stage: values for stage, values in stages.items() if stage in wanted}


def _check_starts(stages: Mapping[str, Any], config: RunConfig) -> None:
    """Raise WeightsError where a training on features starts from a model that is not here."""
    for name, locked in stages.items():
        digest = locked.get("weights", {}).get("start")
        if digest is not None and name.startswith("train-") and token_of(digest) not in config.starts:
            raise WeightsError(
                f"{name} starts from the model with the digest {digest}, which is not here; give its folder "
                "with --start"
            )


def _configuration(
    wanted: Mapping[str, Any], lock: Path, text: Path, images: Path | None, outside: Mapping[str, str | None]
) -> RunConfig:
    """Return the lock's configuration with this machine's paths."""
    tables = {name: dict(table) for name, table in wanted["config"].items()}
    with_images = tables.setdefault("prepare", {}).pop("images", False)
    if with_images and images is None:
        raise InputError(f"{lock} is of a run with images; give their folder with --images")
    if images is not None and not with_images:
        raise InputError(f"{lock} is of a run on text alone; leave --images out")
    tables["prepare"]["text"] = str(text.resolve())
    if images is not None:
        tables["prepare"]["images"] = str(images.resolve())
    put_options(tables, outside)
    return RunConfig.of_values(
        {"preset": wanted.get("preset", "custom"), "task": wanted.get("task"), **tables}, lock
    )


def _check_folder(run: RunFolder, lock: Path) -> None:
    """Check that the folder is new or marked by a copy of the same lock, so that no other run is changed."""
    copy = run.path / _COPY
    if copy.is_file() and copy.read_bytes() == lock.read_bytes():
        return
    if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
        raise StageError(
            f"{run.path} is not empty and no reproduction of {lock}; give a new folder with --run"
        )


def _compute(
    wanted: Mapping[str, Any],
    config: RunConfig,
    run: RunFolder,
    tools: Tools,
    report: Callable[[Report], None],
    result: Reproduction,
) -> None:
    """Run every stage of the lock and compare each; stop after prepare if the images are not the lock's."""
    config.write(run.config)
    # Why the arithmetic may differ, so far: a stage inherits the rounding of those before it.
    reasons: list[_Difference] = []
    for name, locked in wanted["stages"].items():
        stage = stage_named(config, run, name)
        report(run_stage(stage, tools))
        record = StageRecord.read(run.record(name))
        assert record is not None
        reasons += [reason for reason in _arithmetic(wanted, locked, record) if reason not in reasons]
        result.comparisons += _compare_causes(name, locked, record)
        if stage.inputs_outside:
            result.comparisons += _compare_prepared(wanted, locked, record, run)
            if result.different:
                return
        else:
            result.comparisons += _compare_outputs(wanted, locked, record, stage, reasons)
        if (scores := stage.scores()) is not None:
            there = wanted.get("scores", {}).get(name, {})
            result.comparisons += _compare_scores(name, there, scores, result.tolerance)
    result.comparisons += [
        Comparison("environment", what, "noted", f"{old} -> {new}") for what, old, new in reasons
    ]
    result.complete = True


def _compare_texts(wanted: Mapping[str, Any], config: RunConfig) -> list[Comparison]:
    prepare = config.of(PrepareSettings)
    texts = find_texts(prepare.text, config.task, prepare.format)
    found = samples_of(open_texts(texts), config.task, texts.format, prepare.reading).identities
    comparisons = []
    for split in (split for split in SPLITS if split in found or split in wanted["data"]):
        here, there = found.get(split), wanted["data"].get(split)
        if here is None or there is None:
            holder = "the lock's data" if here is None else "this data"
            comparisons.append(Comparison("data", split, "different", f"only {holder} has this split"))
        elif here.digest == there["digest"]:
            comparisons.append(
                Comparison("data", split, "equal", f"{counted(here.samples, 'samples')}; {here}")
            )
        else:
            digests = f"digest {there['digest'][:12]} -> {here.digest[:12]}"
            numbers = f"{counted(here.samples, 'samples')}, lock {there['samples']}; {digests}"
            comparisons.append(
                Comparison(
                    "data", split, "different", f"not the data of the lock ({numbers}); found {here.known_as}"
                )
            )
    return comparisons


def _compare_outside(wanted: Mapping[str, Any], config: RunConfig) -> list[Comparison]:
    """Compare each file from outside that the lock's stages used with the one that is here."""
    comparisons = []
    for one in outside_of(wanted, config):
        if one.here == one.locked:
            comparisons.append(Comparison("weights", one.called, "equal", one.locked[:12]))
        else:
            wish = f"expected digest {one.locked}, found {one.here[:12]}; give it with {one.option}"
            comparisons.append(Comparison("weights", one.called, "different", wish))
    return comparisons


def _arithmetic(
    wanted: Mapping[str, Any], locked: Mapping[str, Any], record: StageRecord
) -> list[_Difference]:
    """Return how the machine, the versions or the precision of a stage differ from the lock's."""
    there = wanted["environments"].get(str(locked["environment"]), {})
    pairs = [*_differences(_flat(there), _flat(environment_of(record)))]
    pairs += _differences(
        *(
            {name: values.get(name) for name in _ARITHMETIC}
            for values in (locked["parameters"], record.parameters)
        )
    )
    return pairs


def _flat(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: value for name, value in environment.items() if name != "versions"},
        **environment.get("versions", {}),
    }


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[_Difference]:
    names = sorted({*old, *new})
    return [(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def _compare_causes(name: str, locked: Mapping[str, Any], record: StageRecord) -> list[Comparison]:
    """Compare parameters, schema version and those weights that could not be compared before.

    Inputs are outputs of the stages before.
    """
    old = {"schema_version": locked["schema_version"], **locked["parameters"], **locked.get("weights", {})}
    new = {"schema_version": record.schema_version, **record.parameters, **record.weights}
    changed = [part for part in _differences(old, new) if part[0] not in _ARITHMETIC]
    if not changed:
        return [Comparison(name, "parameters", "equal")]
    return [Comparison(name, part, "different", f"{there} -> {here}") for part, there, here in changed]


def _compare_prepared(
    wanted: Mapping[str, Any], locked: Mapping[str, Any], record: StageRecord, run: RunFolder
) -> list[Comparison]:
    facts, data = data_facts(run), wanted["data"]
    there, here = data["images"], facts["images"]
    comparisons = []
    if here == there:
        comparisons.append(Comparison("data", "images", "equal", f"{here['usable']} usable"))
    else:
        digests = f"digest {there['digest'][:12]} -> {here['digest'][:12]}"
        numbers = f"{here['usable']} usable, lock {there['usable']}; {digests}"
        splits = [split for split in SPLITS if split in facts]
        per_split = ", ".join(
            f"{split} {facts[split]['with_image']}, lock {data[split]['with_image']}" for split in splits
        )
        comparisons.append(
            Comparison(
                "data",
                "images",
                "different",
                f"not the images of the lock ({numbers}; samples with one: {per_split})",
            )
        )
    same = record.outputs["samples"] == locked["outputs"]["samples"]
    remark = "" if same else "other ids, groups or images of the same texts"
    comparisons.append(Comparison("data", "samples", "equal" if same else "different", remark))
    if record.inputs != locked["inputs"] or record.outputs["problems"] != locked["outputs"]["problems"]:
        comparisons.append(
            Comparison(
                "data", "files", "noted", "other bytes or order of lines than the lock's, of the same content"
            )
        )
    return comparisons


def _compare_outputs(
    wanted: Mapping[str, Any],
    locked: Mapping[str, Any],
    record: StageRecord,
    stage: Stage,
    reasons: Sequence[_Difference],
) -> list[Comparison]:
    """Compare each output by its digest; where it differs, the lock's probes give the distance."""
    probes = wanted.get("probes", {}).get(record.stage, {})
    comparisons = []
    for name in sorted({*locked["outputs"], *record.outputs}):
        there, here = locked["outputs"].get(name), record.outputs.get(name)
        if there == here:
            comparisons.append(Comparison(record.stage, name, "equal", str(here)[:12]))
            continue
        if name in _WITH_PLACES and there and here:
            comparisons.append(Comparison(record.stage, name, "noted", _WITH_PLACES[name]))
            continue
        near, text = stage.distance(name, probes.get(name, [])) or (
            True,
            f"digest {str(there)[:12]} -> {str(here)[:12]}",
        )
        if not reasons:
            text += "; nothing else differs that could explain it"
        state: Literal["rounding", "different"] = "rounding" if near and reasons else "different"
        comparisons.append(Comparison(record.stage, name, state, text))
    return comparisons


def _compare_scores(
    name: str, locked: Mapping[str, Any], here: Mapping[str, Any], tolerance: float
) -> list[Comparison]:
    """Compare precision, recall and F1 of each split; F1 decides."""
    comparisons = []
    for split in ("valid", "test"):
        old, new = locked.get(split), here.get(split)
        if old is None and new is None:
            continue
        if old is None or new is None:
            comparisons.append(
                Comparison(name, f"{split} scores", "different", "only one of the two has them")
            )
            continue
        text = ", ".join(
            f"{score} {old[score]:.4f} -> {new[score]:.4f} ({new[score] - old[score]:+.4f})" for score in new
        )
        state: Literal["equal", "rounding", "different"] = (
            "equal" if new == old else "rounding" if abs(new["f1"] - old["f1"]) <= tolerance else "different"
        )
        comparisons.append(
            Comparison(name, f"{split} scores", state, f"f1 {new['f1']:.4f}" if state == "equal" else text)
        )
    return comparisons
