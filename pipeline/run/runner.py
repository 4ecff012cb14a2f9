"""Running one stage: lock, freshness, computation, record.

A stage whose fingerprint and output digests match its record does nothing. Otherwise the fields that changed are named, the stage
keeps what is still valid, and its record is written last.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ... import __version__
from ...manifests.errors import HmnetPipeError, StageError
from ...manifests.files import disk_error, disk_remedy, remove_temporaries, write_text
from ...manifests.record import StageRecord
from ...stages.base.stage import Stage
from ...stages.base.tools import SILENT, Counts, Tools
from ..cluster.machine import machine_kind
from .freshness import note_up_to_date, settings_of

if TYPE_CHECKING:
    from ...stages.learning.ranks import Ranks

__all__ = [
    "Report",
    "disk_errors",
    "expected_record",
    "follow_stage",
    "lead_stage",
    "locked",
    "run_stage",
    "stage_state",
]

_RECORDED_PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "pytorch-crf",
    "numpy",
    "pillow",
    "h5py",
    "pyarrow",
    "dask",
)


@dataclass(frozen=True)
class Report:
    """How a command ended, for people (`lines`) and for machines (`--json`). state: "fresh" or "done"."""

    stage: str
    state: str
    unit: str
    done: int
    skipped: int
    failed: int
    seconds: float
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, default=str)

    def lines(self) -> list[str]:
        details = {
            name: value
            for name, value in self.details.items()
            if name != "output" and value not in (None, {}, [])
        }
        where = f" -> {self.details['output']}" if "output" in self.details else ""
        if self.state == "fresh":
            head = f"{self.stage}: up to date, nothing to do ({self.seconds:.1f} s)"
        else:
            rate = f", {self.done / self.seconds:.1f} {self.unit}/s" if self.done and self.seconds else ""
            counts = f"{self.done} {self.unit} done, {self.skipped} skipped, {self.failed} failed"
            head = f"{self.stage}: {counts} in {self.seconds:.1f} s{rate}"
        return [head + where, *(f"  {name}: {_text(value)}" for name, value in details.items())]


def _text(value: Any) -> str:
    if isinstance(value, dict) and any(isinstance(part, dict) for part in value.values()):
        return "; ".join(f"{name}: {_text(part)}" for name, part in value.items())
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(part) for part in value)
    return str(value)


def expected_record(stage: Stage, tools: Tools = SILENT) -> StageRecord:
    """What the stage's record would say of its causes if it ran now; outputs are empty."""
    return StageRecord(
        stage.name, stage.schema_version, stage.parameters(), stage.inputs(tools), stage.weights(), {}
    )


def stage_state(stage: Stage, expected: StageRecord) -> tuple[str, list[str]]:
    """("fresh" | "stale" | "never run", reasons): whether the stage would do anything if it were to make `expected`, and why."""
    record = StageRecord.read(stage.run.record(stage.name))
    if record is None:
        return "never run", []
    changes = record.changes(expected)
    if record.fingerprint != expected.fingerprint:
        return "stale", changes or ["fingerprint"]
    outputs = stage.outputs()
    wrong = sorted(
        name for name in {*record.outputs, *outputs} if record.outputs.get(name) != outputs.get(name)
    )
    if wrong:
        return "stale", [
            f"output {name}, which is {'not as recorded' if name in outputs else 'missing or damaged'}"
            for name in wrong
        ]
    return "fresh", []


def run_stage(stage: Stage, tools: Tools, starting: Callable[[], None] = lambda: None) -> Report:
    """Bring `stage` up to date; `starting` is called if there is anything to compute.

    Raises StageError where another process is running it, or where it cannot finish.
    """
    started, started_at = time.monotonic(), time.time_ns()
    # Before anything is written, so that a mistyped path or a missing weights file leaves no half-made run.
    expected = expected_record(stage, tools)
    with disk_errors(stage), locked(stage):
        state, reasons = stage_state(stage, expected)
        if state == "fresh":
            record = StageRecord.read(stage.run.record(stage.name))
            assert record is not None
            counts = record.facts.get("counts", {})
            note_up_to_date(stage, record, started_at)
            stage.finish()  # a kill may have come between it and the record
            known = {
                key: counts.get(key, default)
                for key, default in (("unit", ""), ("failed", 0), ("details", {}))
            }
            return Report(
                stage.name,
                "fresh",
                done=0,
                skipped=counts.get("done", 0),
                seconds=time.monotonic() - started,
                **known,
            )
        for reason in reasons:
            tools.say(f"{stage.name} runs again because of {reason}")
        starting()
        counts = stage.compute(
            replace(tools, map=lambda function, units: tools.map(_Seeing(function, stage.run.images), units))
        )
        seconds = time.monotonic() - started
        record = StageRecord(
            stage.name,
            expected.schema_version,
            expected.parameters,
            expected.inputs,
            expected.weights,
            stage.outputs(),
            {**_facts(counts, seconds), "settings": settings_of(stage)},
        )
        record.write(stage.run.record(stage.name))
        # What was changed while the stage ran is newer than its record.
        os.utime(stage.run.record(stage.name), ns=(started_at, started_at))
        stage.finish()
    return Report(
        stage.name, "done", counts.unit, counts.done, counts.skipped, counts.failed, seconds, counts.details
    )


@dataclass(frozen=True)
class _Seeing:
    """A unit's function, for a worker that may run on another machine. Without the same files there every image would be missing, and
    what is made would lie where nobody looks."""

    function: Callable[[Any], Any]
    witness: Path

    def __call__(self, unit: Any) -> Any:
        if not self.witness.is_file():
            raise StageError(
                f"the worker on {socket.gethostname()} does not see {self.witness}; a run, its images and its weights must lie under the "
                "same paths on every machine, on a file system that they share"
            )
        return self.function(unit)


def lead_stage(stage: Stage, tools: Tools, ranks: Ranks) -> Report:
    """`run_stage` on rank 0 of several, which decides for all of them whether there is anything to compute."""
    told = False

    def start() -> None:
        nonlocal told
        told = True
        ranks.broadcast(True)

    try:
        return run_stage(stage, tools, start)
    finally:
        if not told:
            ranks.broadcast(False)


def follow_stage(stage: Stage, ranks: Ranks) -> None:
    """The other ranks' part of `lead_stage`: they take part in the computation, and leave lock, record and words to rank 0."""
    if ranks.broadcast(None):
        stage.compute(SILENT)


def _facts(counts: Counts, seconds: float) -> dict[str, Any]:
    return {
        "counts": json.loads(json.dumps(asdict(counts), default=str)),
        "seconds": round(seconds, 3),
        "throughput": round(counts.done / seconds, 3) if seconds else None,
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "machine": machine_kind(),
        "python": platform.python_version(),
        "versions": {
            "hmnet-pipe": __version__,
            **{name: found for name in _RECORDED_PACKAGES if (found := _version(name))},
        },
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@contextmanager
def locked(stage: Stage) -> Iterator[None]:
    """One process a stage. The operating system frees the lock of a process that dies, so that it is never left behind."""
    path = stage.run.lock(stage.name)
    owner = path.with_suffix(".owner")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        holder = owner.read_text(encoding="utf-8").strip() if owner.is_file() else "another process"
        raise StageError(
            f"{stage.name} of {stage.run.path} is being run by {holder}; wait for it, or stop it first"
        ) from error
    try:
        remove_temporaries(path.parent, f"{stage.name}.*")
        write_text(owner, f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


@contextmanager
def disk_errors(stage: Stage) -> Iterator[None]:
    """A full disk or a read-only folder is one sentence, and the run can be resumed."""
    try:
        yield
    except HmnetPipeError:
        raise  # it has said what is wrong
    except Exception as error:
        if (cause := disk_error(error)) is None:
            raise
        raise StageError(f"{stage.name} stopped: {disk_remedy(cause, stage.run.path)}") from error
