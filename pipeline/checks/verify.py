"""`hmnet-pipe verify`: what lies on disk against what the stages recorded, and against the checksums of the cache; with --rerun
also against what the stages make of the same inputs now."""

import json
import platform
import random
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...cache.integrity import find_damage
from ...cache.reader import FeatureCache
from ...cache.shards import Shard
from ...cache.spec import as_numbers
from ...manifests.errors import HmnetPipeError, StageError
from ...manifests.files import TEMPORARY_PREFIX
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.schemas import DETECTIONS, OUTCOMES
from ...manifests.tables import read_table
from ...stages.base.stage import Stage
from ...stages.base.tools import Tools, UnitFailure
from ...stages.detect.stage import Detect
from ...stages.detect.unit import chunk_tables
from ...stages.extract.stage import Extract
from ...stages.finetune.stage import Finetune
from ...stages.prepare.stage import Prepare
from ...stages.train.stage import Train
from ..cluster.machine import machine_kind
from ..run.config import RunConfig
from ..run.runner import Report, expected_record, run_stage
from .status import run_stages

__all__ = ["Problem", "Rerun", "mend_run", "rerun_run", "verify_run"]

# What a sum in another order may move, on another machine or with another version: beyond it a result is another one. bf16 keeps 8 bits.
_BOX_PIXELS = {"fp32": 0.1, "bf16": 4.0}
_SCORE = {"fp32": 1e-3, "bf16": 0.05}
_COSINE = {"fp32": 0.9999, "bf16": 0.99}
_F1 = 0.02

Unit = TypeVar("Unit")


@dataclass(frozen=True)
class Problem:
    """One thing that is not as recorded: the stage that made it, the file or table, and what is wrong."""

    stage: str
    what: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def verify_run(run: RunFolder) -> list[Problem]:
    """Every output of every finished stage that is not what its record says. Reads everything and changes nothing.

    Raises StageError where `run` is not a run.
    """
    problems: list[Problem] = []
    for stage in run_stages(RunConfig.read(run.config), run):
        try:
            record = StageRecord.read(run.record(stage.name))
        except StageError as error:
            problems.append(Problem(stage.name, str(run.record(stage.name)), str(error)))
            continue
        if record is None:
            continue
        damage = find_damage(run.features) if stage.name == "extract" else []
        problems += [Problem(stage.name, str(item.path), item.reason) for item in damage]
        try:
            outputs = stage.outputs()
        except StageError as error:
            problems.append(Problem(stage.name, stage.name, str(error)))
            continue
        for name in sorted({*record.outputs, *outputs}):
            if record.outputs.get(name) != outputs.get(name) and not (damage and name == "features"):
                problems.append(
                    Problem(stage.name, name, "not as recorded" if name in outputs else "missing or damaged")
                )
    return problems


def mend_run(run: RunFolder, problems: list[Problem], tools: Tools) -> list[Report]:
    """Recompute what `verify_run` found wrong, and only that: damaged shards go, and each stage makes again what is missing."""
    for problem in problems:
        if problem.what.endswith(".h5"):
            (run.features / problem.what).unlink(missing_ok=True)
    wrong = {problem.stage for problem in problems}
    for problem in problems:
        if problem.what == str(run.record(problem.stage)):
            run.record(problem.stage).unlink()
    return [
        run_stage(stage, tools)
        for stage in run_stages(RunConfig.read(run.config), run)
        if stage.name in wrong
    ]


@dataclass(frozen=True)
class Rerun:
    """What came of computing a part of a stage again.

    verdict: "equal" to the last bit; "close", apart by no more than floating point may be; "different"; or "not run", with the reason as
    the only remark. checked: how much was computed again. distances: the largest ones by name. remarks: what else there is to say, such
    as which versions or what of the machine differs from the recorded ones.
    """

    stage: str
    verdict: str
    checked: str = ""
    distances: dict[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        distances = "".join(f", {name} {value:.6g}" for name, value in self.distances.items())
        head = f"{self.stage}: {self.verdict}{f' ({self.checked} computed again{distances})' if self.checked else ''}"
        return [head, *(f"  {remark}" for remark in self.remarks)]


def rerun_run(run: RunFolder, share: float, train: bool, tools: Tools) -> Iterator[Rerun]:
    """Compute `share` of every finished stage again, at least one unit, and compare; trainings only with `train` or a share of 1.

    Everything is made in a temporary folder inside the run, which goes afterwards; the run itself is not changed. Raises StageError
    where `run` is not a run.
    """
    for stage in run_stages(RunConfig.read(run.config), run):
        record = StageRecord.read(run.record(stage.name))
        if record is None:
            continue
        with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY_PREFIX}verify-", dir=run.path) as temporary:
            try:
                yield _rerun(stage, record, share, train, RunFolder(Path(temporary)), tools)
            except HmnetPipeError as error:
                yield Rerun(stage.name, "not run", remarks=[str(error)])


def _rerun(
    stage: Stage, record: StageRecord, share: float, train: bool, scratch: RunFolder, tools: Tools
) -> Rerun:
    if isinstance(stage, (Train, Finetune)) and not (train or share >= 1):
        return Rerun(stage.name, "not run", remarks=["a training is repeated only with --rerun 1 or --train"])
    if not isinstance(stage, (Prepare, Detect, Extract, Train, Finetune)):
        return Rerun(stage.name, "not run", remarks=["there is no way yet to repeat it"])
    if isinstance(stage, Prepare):
        return _rerun_prepare(stage, record, scratch, tools)
    if changes := record.changes(expected_record(stage, tools)):
        return Rerun(stage.name, "not run", remarks=[f"it is not up to date ({changes[0]}); run it first"])
    elsewhere = _machine_changes(record)
    if isinstance(stage, Detect):
        result = _rerun_detect(stage, share, scratch, tools)
    elif isinstance(stage, Extract):
        result = _rerun_extract(stage, share, scratch, tools)
    else:
        result = _rerun_train(stage, record, scratch, tools)
    if result.verdict in ("close", "different"):
        elsewhere = elsewhere or [
            "machine and versions are those of the record: its numbers were to be the same"
        ]
    return Rerun(
        result.stage, result.verdict, result.checked, result.distances, [*result.remarks, *elsewhere]
    )


def _rerun_prepare(stage: Prepare, record: StageRecord, scratch: RunFolder, tools: Tools) -> Rerun:
    """All of it: reading the sources again is how it is known that they are the same."""
    again = Prepare(scratch, stage.settings)
    again.compute(tools)
    outputs = again.outputs()
    wrong = sorted(name for name in record.outputs if outputs.get(name) != record.outputs[name])
    sources = [
        f"the sources have changed since: {change}"
        for change in record.changes(expected_record(again, tools))
    ]
    return Rerun(
        stage.name,
        "different" if wrong else "equal",
        "everything",
        remarks=[*(f"{name} is not as recorded" for name in wrong), *sources],
    )


def _rerun_detect(stage: Detect, share: float, scratch: RunFolder, tools: Tools) -> Rerun:
    work = scratch.work(stage.name)
    work.mkdir(parents=True)
    units = _sample(stage.all_units(work), share)
    found, outcomes = [], []
    for unit, result in tools.map(_detect_chunk(), units):
        if isinstance(result, UnitFailure):
            raise StageError(f"{len(unit)} images could not be computed again: {result.reason}")
        tables = chunk_tables(result)
        found.append(read_table(tables[0], DETECTIONS))
        outcomes.append(read_table(tables[1], OUTCOMES))
    checked = f"{sum(map(len, units))} images"
    if not units:
        return Rerun(stage.name, "equal", checked)
    keys = pa.array([key for unit in units for key, _ in unit.images], pa.string())
    new, old = pa.concat_tables(found), _rows_of(read_table(stage.run.detections, DETECTIONS), keys)
    order = [("image_key", "ascending"), ("rank", "ascending")]
    new, old = new.sort_by(order), old.sort_by(order)
    new_outcomes = pa.concat_tables(outcomes).sort_by("image_key")
    same_outcomes = new_outcomes.equals(
        _rows_of(read_table(stage.run.outcomes(stage.name), OUTCOMES), keys).sort_by("image_key")
    )
    if new.equals(old) and same_outcomes:
        return Rerun(stage.name, "equal", checked)
    remarks = [] if same_outcomes else ["other images failed, or for another reason"]
    fixed = ("image_key", "rank", "label")
    if new.num_rows != old.num_rows or any(not new.column(name).equals(old.column(name)) for name in fixed):
        remarks.append(
            f"other objects: {old.num_rows} recorded, {new.num_rows} now, or other labels or places in the order"
        )
        return Rerun(stage.name, "different", checked, remarks=remarks)
    boxes = max(_distance(new.column(side), old.column(side)) for side in ("x0", "y0", "x1", "y1"))
    scores = _distance(new.column("score"), old.column("score"))
    precision = str(stage.parameters()["precision"])
    close = same_outcomes and boxes <= _BOX_PIXELS[precision] and scores <= _SCORE[precision]
    return Rerun(
        stage.name,
        "close" if close else "different",
        checked,
        {"boxes (pixels)": boxes, "scores": scores},
        remarks,
    )


def _rerun_extract(stage: Extract, share: float, scratch: RunFolder, tools: Tools) -> Rerun:
    scratch.features.mkdir()
    names = _sample(FeatureCache(stage.run.features).shards(), share)
    units = stage.units_of(names, scratch.features)
    remarks = []
    equal, cosine, distances, images = True, 1.0, dict[str, float](), 0
    for unit, result in tools.map(_extract_shard(), units):
        if isinstance(result, UnitFailure):
            raise StageError(f"{len(unit)} images could not be computed again: {result.reason}")
        (target,) = unit.targets
        old, new = Shard(stage.run.features / target.path.name), Shard(target.path)
        if unit.digest(target) != old.unit:
            remarks.append(
                f"{target.path.name} was put together otherwise; another batch may round differently"
            )
        images += len(old.keys)
        if new.keys != old.keys or not np.array_equal(new.view_mask, old.view_mask):
            return Rerun(
                stage.name,
                "different",
                f"{images} images",
                remarks=[*remarks, f"{target.path.name} holds other images or views"],
            )
        equal = equal and np.array_equal(new.checksums, old.checksums)
        start = 0
        for level, channels in enumerate(old.spec.levels, start=1):
            a, b = (_float(shard)[:, :, start : start + channels] for shard in (old, new))
            start += channels
            name = f"level {level}"
            distances[name] = max(distances.get(name, 0.0), float(np.abs(a - b).max(initial=0.0)))
            cosine = min(cosine, _least_cosine(a[old.view_mask], b[old.view_mask]))
    checked = f"{len(units)} shards with {images} images"
    if equal:
        return Rerun(stage.name, "equal", checked, remarks=remarks)
    close = cosine >= _COSINE[str(stage.parameters()["precision"])]
    return Rerun(
        stage.name, "close" if close else "different", checked, {**distances, "least cosine": cosine}, remarks
    )


def _rerun_train(stage: Train | Finetune, record: StageRecord, scratch: RunFolder, tools: Tools) -> Rerun:
    from safetensors.numpy import load_file

    for path in (stage.run.samples, stage.run.images, stage.run.detections, stage.run.features):
        if path.exists():
            (scratch.path / path.name).symlink_to(path.resolve())
    trained = stage.run.model(stage.system, stage.seed)
    if trained != stage.folder and trained.is_dir():  # what a fine-tuning may start from
        scratch.model(stage.system, stage.seed).parent.mkdir(parents=True)
        scratch.model(stage.system, stage.seed).symlink_to(trained.resolve())
    again = replace(stage, run=scratch)
    run_stage(again, tools)
    outputs = again.outputs()
    checked = "the training"
    wrong = sorted(name for name in record.outputs if outputs.get(name) != record.outputs[name])
    if not wrong:
        return Rerun(stage.name, "equal", checked)
    old, new = (load_file(folder / "model.safetensors") for folder in (stage.folder, again.folder))
    if old.keys() != new.keys() or any(old[name].shape != new[name].shape for name in old):
        return Rerun(stage.name, "different", checked, remarks=["the model has other tensors"])
    weights = max(
        float(np.abs(old[name].astype(np.float64) - new[name].astype(np.float64)).max(initial=0.0))
        for name in old
    )
    distances = {"weights": weights}
    metrics = [
        json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        for folder in (stage.folder, again.folder)
    ]
    for split in ("valid", "test"):
        if all(one.get(split) for one in metrics):
            distances[f"{split} F1"] = abs(metrics[0][split]["f1"] - metrics[1][split]["f1"])
    # Where nothing else differs, neither may the numbers.
    scores = [value for name, value in distances.items() if name != "weights"]
    close = bool(_machine_changes(record)) and max(scores, default=0.0) <= _F1
    return Rerun(
        stage.name,
        "close" if close else "different",
        checked,
        distances,
        [f"not as recorded: {', '.join(wrong)}"],
    )


def _sample(units: Sequence[Unit], share: float) -> list[Unit]:
    """A share of the units, at least one, in their order; the same ones each time."""
    if not units:
        return []
    chosen = random.Random(0).sample(range(len(units)), min(len(units), max(1, round(share * len(units)))))
    return [units[i] for i in sorted(chosen)]


def _rows_of(table: pa.Table, keys: pa.Array) -> pa.Table:
    return table.filter(pc.is_in(table.column("image_key"), keys))


def _distance(a: pa.ChunkedArray, b: pa.ChunkedArray) -> float:
    return float(np.abs(a.to_numpy().astype(np.float64) - b.to_numpy().astype(np.float64)).max(initial=0.0))


def _float(shard: Shard) -> Any:
    """The pyramid (R, V, C, p, p) as float32."""
    return as_numbers(shard.pyramid, shard.spec.dtype).astype(np.float32)


def _least_cosine(a: Any, b: Any) -> float:
    """The smallest cosine between the vectors of a view in `a` and in `b`, each (views, C, p, p); 1 for two of length 0."""
    a, b = (side.reshape(len(side), -1).astype(np.float64) for side in (a, b))
    product, length = (a * b).sum(1), np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = (a == b).all(1)
    return float(np.where(same, 1.0, product / np.where(length > 0, length, 1.0)).min(initial=1.0))


def _machine_changes(record: StageRecord) -> list[str]:
    """What of machine and versions is not as the record has it, as `torch: 2.5.0 -> 2.6.0`."""
    versions: Mapping[str, str] = record.facts.get("versions", {})
    machine: Mapping[str, Any] = record.facts.get("machine", {})
    now = machine_kind()
    pairs: Iterable[tuple[str, Any, Any]] = [
        ("python", record.facts.get("python"), platform.python_version()),
        *((name, old, _version(name)) for name, old in versions.items()),
        # Detection and extraction run in workers of one thread, whatever this process has.
        *(
            (name, old, now.get(name))
            for name, old in machine.items()
            if name != "threads" or record.stage.startswith("train")
        ),
    ]
    return [f"{name}: {old} -> {new}" for name, old, new in pairs if old != new]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _detect_chunk() -> Any:
    from ...stages.detect.work import detect_chunk

    return detect_chunk


def _extract_shard() -> Any:
    from ...stages.extract.work import extract_shard

    return extract_shard
