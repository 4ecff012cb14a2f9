"""Running one stage: lock, freshness, computation, record.

A stage whose fingerprint and output digests match its record does nothing. Otherwise the fields that changed
are named, the stage keeps what is still valid, and its record is written last.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ... import __version__
from ...manifests.errors import HmnetPipeError, InputError, StageError, WeightsError
from ...manifests.files import disk_error, disk_remedy, remove_temporaries
from ...manifests.record import StageRecord
from ...stages.base.stage import Stage, changed_outputs
from ...stages.base.tools import SILENT, Counts, Tools, counted
from ..cluster.machine import installed_version, machine_kind
from .freshness import note_up_to_date
from .locks import hold

if TYPE_CHECKING:
    from ...stages.learning.ranks import Ranks

__all__ = [
    "Accepted",
    "Report",
    "State",
    "disk_errors",
    "follow_stage",
    "lead_stage",
    "locked",
    "run_stage",
    "run_together",
    "stage_state",
]

_RECORDED_PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "timm",
    "pytorch-crf",
    "numpy",
    "pillow",
    "h5py",
    "pyarrow",
    "dask",
)


State = Literal["fresh", "partial", "stale", "never run"]
"""A stage's state: it has nothing to do, images that could not be read are left to do, it was done from other
causes, or it was never done."""


Accepted = Callable[[], Callable[[], None]]
"""Does something for stages that nothing keeps from starting, and returns what takes it back."""


@dataclass(frozen=True)
class Report:
    """How a command ended, for people (`lines`) and for machines (`to_json`).

    state: "fresh" if there was nothing to do, otherwise "done". output: where the result is now.
    """

    stage: str
    state: Literal["fresh", "done"]
    unit: str
    done: int
    skipped: int
    failed: int
    seconds: float
    output: Path | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return values

    def lines(self) -> list[str]:
        if self.state == "fresh":
            head = f"{self.stage}: up to date, nothing to do ({self.seconds:.1f} s)"
        else:
            rate = f", {self.done / self.seconds:.1f} {self.unit}/s" if self.done and self.seconds else ""
            counts = f"{counted(self.done, self.unit)} done, {self.skipped} skipped, {self.failed} failed"
            head = f"{self.stage}: {counts} in {self.seconds:.1f} s{rate}"
        where = f" -> {self.output}" if self.output is not None else ""
        details = {name: value for name, value in self.details.items() if value not in (None, {}, [])}
        return [head + where, *(f"  {name}: {_text(value)}" for name, value in details.items())]


def _text(value: Any) -> str:
    if value in ({}, [], ()):
        return "none"
    if isinstance(value, dict) and any(isinstance(part, dict) for part in value.values()):
        return "; ".join(f"{name}: {_text(part)}" for name, part in value.items())
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(part) for part in value)
    return str(value)


def stage_state(stage: Stage, causes: StageRecord) -> tuple[State, list[str]]:
    """Return whether the stage would do anything if it were to run from `causes`, and why."""
    record = StageRecord.read(stage.run.record(stage.name))
    if record is None:
        return "never run", []
    if record.fingerprint != causes.fingerprint:
        return "stale", record.changes(causes) or ["fingerprint"]
    outputs = stage.outputs()
    if wrong := changed_outputs(record, outputs):
        return "stale", [
            f"output {name}, which is {'not as recorded' if name in outputs else 'missing or damaged'}"
            for name in wrong
        ]
    if missed := stage.missed():
        reasons = ", ".join(f"{reason}: {number}" for reason, number in missed.items())
        return "partial", [f"{counted(sum(missed.values()), 'images')} that could not be read ({reasons})"]
    return "fresh", []


def run_stage(
    stage: Stage,
    tools: Tools,
    starting: Callable[[], None] = lambda: None,
    accepted: Accepted | None = None,
) -> Report:
    """Bring `stage` up to date; see `run_together`."""
    return run_together([stage], tools, starting, accepted)[0]


def run_together(
    stages: Sequence[Stage],
    tools: Tools,
    starting: Callable[[], None] = lambda: None,
    accepted: Accepted | None = None,
) -> list[Report]:
    """Bring stages of one kind up to date in one computation. None of them may read what another makes.

    starting: called if there is anything to compute. accepted: called once nothing is in the way of the
    stages, whether or not they have anything to do. What it returns is called if they then fail before
    anything is kept that the next run would use. Raises StageError where another process is running one of
    them, or where one cannot finish.
    """
    started, started_at = time.monotonic(), time.time_ns()
    # Computed before anything is written: a mistyped path or a missing weights file leaves no half-made run.
    for stage in stages:
        stage.run.check_folders()
    causes = {stage.name: stage.causes(tools) for stage in stages}
    reports: dict[str, Report] = {}
    works: list[tuple[Stage, StageRecord]] = []
    with ExitStack() as stack:
        for stage in stages:
            stack.enter_context(disk_errors(stage))
            stack.enter_context(locked(stage, tools.say))
        if accepted is not None:
            stack.enter_context(_taken_back(accepted(), stages, causes))
        why: list[str] = []
        for stage in stages:
            state, reasons = stage_state(stage, causes[stage.name])
            if state == "fresh":
                reports[stage.name] = _noted(stage, started, started_at)
                continue
            stage.check_places()
            why += [f"{stage.name} runs again because of {reason}" for reason in reasons]
            works.append((stage, causes[stage.name]))
        if works:
            starting()
            reports |= _computed(works, _saying_first(tools, why), started, started_at)
            for reason in why:  # it had no use for the tools
                tools.say(reason)
    return [reports[stage.name] for stage in stages]


@contextmanager
def _taken_back(
    undo: Callable[[], None], stages: Sequence[Stage], causes: Mapping[str, StageRecord]
) -> Iterator[None]:
    """Call `undo` where the stages refuse their settings, or fail and keep nothing of what was begun."""
    try:
        yield
    except Exception as error:
        refused = isinstance(error, (InputError, WeightsError))
        # Whatever stands in the way of this must not hide the error.
        with suppress(OSError, HmnetPipeError):
            if refused or not any(stage.progress(causes[stage.name]) for stage in stages):
                undo()
        raise


def _saying_first(tools: Tools, lines: list[str]) -> Tools:
    """Return the tools, which first say the lines, and take them out of the list.

    A stage that refuses to run uses no tool: what it would have run for is then not said.
    """

    def then(use: Callable[..., Any]) -> Callable[..., Any]:
        def used(*arguments: Any) -> Any:
            while lines:
                tools.say(lines.pop(0))
            return use(*arguments)

        return used

    return replace(tools, say=then(tools.say), bar=then(tools.bar), map=then(tools.map))


def _noted(stage: Stage, started: float, started_at: int) -> Report:
    """Leave a fresh stage as it is, and report what its record says."""
    record = StageRecord.read(stage.run.record(stage.name))
    assert record is not None
    note_up_to_date(stage, record, started_at)
    stage.finish()  # a kill may have come between the record and this
    counts = record.facts.get("counts", {})
    return Report(
        stage.name,
        "fresh",
        counts.get("unit", ""),
        done=0,
        skipped=counts.get("done", 0),
        failed=counts.get("failed", 0),
        seconds=time.monotonic() - started,
        output=stage.place,
        details=counts.get("details", {}),
    )


def _computed(
    works: Sequence[tuple[Stage, StageRecord]], tools: Tools, started: float, started_at: int
) -> dict[str, Report]:
    """Compute stages of one kind, each from its causes, and leave their records."""
    witness = works[0][0].run.images
    lent = replace(tools, map=lambda function, units: tools.map(_Seeing(function, witness), units))
    all_counts = type(works[0][0]).compute_together(works, lent)
    seconds = time.monotonic() - started
    reports = {}
    for (stage, causes), counts in zip(works, all_counts, strict=True):
        facts = {**_facts(counts, seconds), "settings": stage.given()}
        if carried := stage.carried():
            facts["carried"] = carried
        path = stage.run.record(stage.name)
        replace(causes, outputs=stage.outputs(), facts=facts).write(path)
        # A source that was changed while the stage ran is newer than its record.
        os.utime(path, ns=(started_at, started_at))
        stage.finish()
        reports[stage.name] = Report(
            stage.name,
            "done",
            counts.unit,
            counts.done,
            counts.skipped,
            counts.failed,
            seconds,
            stage.place,
            counts.details,
        )
    return reports


@dataclass(frozen=True)
class _Seeing:
    """A unit's function, for a worker that may run on another machine.

    Without the same files there, every image would be missing, and results would be written where nobody
    looks.
    """

    function: Callable[[Any], Any]
    witness: Path

    def __call__(self, unit: Any) -> Any:
        if not self.witness.is_file():
            raise StageError(
                f"the worker on {socket.gethostname()} does not see {self.witness}; "
                "a run, its images and its weights must lie under the same paths on every machine, "
                "on a file system that they share"
            )
        return self.function(unit)


def lead_stage(stage: Stage, tools: Tools, ranks: Ranks, accepted: Accepted | None = None) -> Report:
    """Run a stage on rank 0 of several, which decides for all whether there is anything to compute.

    accepted: see `run_together`.
    """
    decided = False

    def start() -> None:
        nonlocal decided
        decided = True
        ranks.broadcast(True)

    try:
        return run_stage(stage, tools, start, accepted)
    finally:
        if not decided:
            ranks.broadcast(False)


def follow_stage(stage: Stage, ranks: Ranks) -> None:
    """Take part in `lead_stage` on another rank, which leaves lock, record and messages to rank 0."""
    if ranks.broadcast(None):
        stage.compute(stage.causes(), SILENT)


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
            **{name: found for name in _RECORDED_PACKAGES if (found := installed_version(name))},
        },
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


@contextmanager
def locked(stage: Stage, say: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Hold the lock of a stage: one process at a time runs it."""
    path = stage.run.lock(stage.name)
    with hold(path, f"{stage.name} of {stage.run.path} is being run", say=say):
        remove_temporaries(path.parent, f"{stage.name}.*")
        yield


@contextmanager
def disk_errors(stage: Stage) -> Iterator[None]:
    """Turn the error of a full disk or a read-only folder into one sentence; the run can be resumed."""
    try:
        yield
    except HmnetPipeError:
        raise  # its message already says what is wrong
    except Exception as error:
        if (cause := disk_error(error)) is None:
            raise
        raise StageError(f"{stage.name} stopped: {disk_remedy(cause, stage.run.path)}") from error
