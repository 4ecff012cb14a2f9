"""Running a grid: its runs are brought up to date, and then every training that is not done is made.

A training that cannot be made is a row with its reason, and the rest goes on. A kill at any moment leaves
what is finished, and the next run goes on from there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import mean
from typing import Any

from ...manifests.errors import HmnetPipeError, InputError, WeightsError
from ...manifests.files import disk_error, make_folder, write_text
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...stages.base.stage import Stage
from ...stages.base.tools import Tools, UnitFailure
from ...stages.learning.inputs import makers
from ...stages.systems.registry import system_info
from ..run.config import RunConfig
from ..run.graph import KINDS, with_before
from ..run.new import add_recipes, add_starts, prepare_run, write_options
from ..run.runner import Report, run_stage, run_together
from .cells import Cell, Experiment, Row, failure_file
from .work import CellUnit, Outcome, train_cell

__all__ = ["Summary", "in_words", "make_runs", "run_experiment", "seconds_left"]


@dataclass(frozen=True)
class Summary:
    """How a run of a grid ended: how many trainings are done and were made now, and what failed or is held.

    failed: reasons by training. held: those that other processes were training. waiting: how many could not
    be begun, since what decides them is missing.
    """

    done: int
    made: int
    failed: Mapping[str, str]
    held: tuple[str, ...]
    waiting: int

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "failed": dict(self.failed), "held": list(self.held)}


Wrong = Mapping[tuple[str, str, str], str]
"""Why trainings cannot be made, by data, system and feature set ("": the system's own)."""


def make_runs(
    experiment: Experiment, tools: Tools, report: Callable[[Report], None] = lambda report: None
) -> Wrong:
    """Bring what the trainings read up to date, and write what the grid sets into each run.toml.

    Returns which trainings cannot be made, as a stage failed that makes what they read. Whatever is done
    already costs a look.
    """
    wrong: dict[tuple[str, str, str], str] = {}
    for data in dict.fromkeys(row.data for row in experiment.rows):
        run, config = experiment.run(data), experiment.config(data)
        read = {
            (data, row.system, row.block.features): _read_by(row.system, row.block.features)
            for row in experiment.rows
            if row.data == data
        }
        try:
            if not run.config.exists():
                report(prepare_run(run, config, tools))
            elif not run.record("prepare").exists():
                report(run_stage(config.stage("prepare", run), tools))
        except (InputError, WeightsError) as error:  # data that are not here cost their own trainings
            wrong |= dict.fromkeys(read, str(error))
            continue
        tables = experiment.grid.data[data].tables
        write_options(run, {table: dict(values) for table, values in tables.items() if table != "prepare"})
        add_recipes(run, experiment.recipes(data))
        failed: dict[str, str] = {}
        for stages in _in_order(config, run, [name for names in read.values() for name in names]):
            if lacking := [stage for stage in stages if _needs(stage, tables)]:
                failed |= _made(lacking, tools, report)
        for key, names in read.items():
            if reasons := [failed[name] for name in names if name in failed]:
                wrong[key] = reasons[0]
    return wrong


def _read_by(system: str, features: str) -> tuple[str, ...]:
    """Return the names of the stages that make what a training reads."""
    info = system_info(system)
    return makers(info, info.feature_set(features))


def _in_order(config: RunConfig, run: RunFolder, names: Sequence[str]) -> Iterator[list[Stage]]:
    """Yield stages and those before them, in the order of a run; a kind's come together."""
    found = with_before(config, run, names)
    order = [kind.name for kind in KINDS]
    stages = sorted(found.values(), key=lambda stage: order.index(stage.kind))
    for _, alike in groupby(stages, key=lambda stage: stage.kind):
        yield list(alike)


def _needs(stage: Stage, tables: Mapping[str, Any]) -> bool:
    """Return whether a stage never finished, or the grid says how it is made.

    One that did otherwise is its user's to bring up to date, who may have its weights elsewhere.
    """
    return stage.kind in tables or StageRecord.known(stage.run.record(stage.name)) is None


def _made(stages: list[Stage], tools: Tools, report: Callable[[Report], None]) -> dict[str, str]:
    """Run stages of one kind, and return why, by name, they could not."""
    try:
        for one in run_together(stages, tools):
            report(one)
    except HmnetPipeError as error:
        if disk_error(error.__cause__ or error) is not None:
            raise
        return {stage.name: str(error) for stage in stages}
    return {}


def run_experiment(
    experiment: Experiment,
    wrong: Wrong,
    tools: Tools,
    *,
    threads: int = 0,
    jobs: int = 1,
    checkpoint_seconds: float = 60.0,
    say: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Make every training of a grid that is not done, each once.

    wrong: why some cannot be made, as `make_runs` returns it. tools: its `map` runs the trainings. threads:
    see CellUnit. jobs: how many trainings run at once, for the estimate of time. say: prints a line for each
    training that ends.
    """
    over: set[Cell] = set()
    failed: dict[str, str] = {}
    held: list[str] = []
    made = 0

    def end(cell: Cell, outcome: Outcome) -> None:
        nonlocal made
        over.add(cell)
        experiment.forget(cell)
        path = failure_file(experiment.grid, cell)
        if outcome.state == "done":
            made += 1
            path.unlink(missing_ok=True)
        elif outcome.state == "held":
            held.append(cell.title)
        else:
            failed[cell.title] = outcome.reason
            make_folder(path.parent)
            write_text(path, f"{outcome.reason}\n{outcome.trace}")
        say(_ended(experiment, cell, outcome, jobs))

    while ready := [cell for cell in _to_do(experiment) if cell not in over]:
        for cell in ready:
            if reason := wrong.get((cell.data, cell.trial.system, cell.trial.features)):
                end(cell, Outcome("failed", reason))
        for data in {cell.data for cell in ready}:
            if starts := experiment.starts(data):
                add_starts(experiment.run(data), starts)
        units = [
            CellUnit(cell, experiment.run(cell.data).path, threads, checkpoint_seconds)
            for cell in ready
            if cell not in over
        ]
        for unit, outcome in tools.map(train_cell, units):
            if isinstance(outcome, UnitFailure):
                outcome = Outcome("failed", outcome.reason)
            end(unit.cell, outcome)
    looks = [experiment.look(cell).state for cell in experiment.cells()]
    return Summary(looks.count("done"), made, failed, tuple(held), sum(experiment.waiting().values()))


def _to_do(experiment: Experiment) -> list[Cell]:
    """Return the trainings that are not done, those that choose first: the others wait for them."""
    cells = experiment.cells()
    todo = [cell for cell in cells if experiment.look(cell).state != "done"]
    return sorted(todo, key=lambda cell: len(cells[cell].candidates) == 1)


def _ended(experiment: Experiment, cell: Cell, outcome: Outcome, jobs: int) -> str:
    cells = experiment.cells()
    done = sum(experiment.look(each).state == "done" for each in cells)
    total = len(cells) + sum(experiment.waiting().values())
    left = seconds_left(experiment, jobs)
    about = f"; {in_words(left)} left" if left else ""
    look = experiment.look(cell)
    if look.metrics is not None:
        scores = [
            f"{name} F1 {look.metrics[split]['f1']:.4f}"
            for split, name in (("valid", "validation"), ("test", "test"))
            if look.metrics[split] is not None
        ]
        what = ", ".join([*scores, *([in_words(look.seconds)] if look.seconds else [])])
    else:
        what = f"{outcome.state}: {outcome.reason}"
    notes = "".join(f"\n  {line}" for line in outcome.said)
    return f"{done} of {total}  {cell.title}: {what}{about}{notes}"


def seconds_left(experiment: Experiment, jobs: int = 1) -> float | None:
    """Return an estimate of the time to the end, by the finished trainings, or None before the first one.

    A training takes what those of the same data, system and draw took, otherwise of the same data, otherwise
    of all.
    """
    cells = experiment.cells()
    looks = {cell: experiment.look(cell) for cell in cells}
    known: dict[Any, list[float]] = {}
    for cell, look in looks.items():
        if look.state == "done" and look.seconds:
            for key in _alike(cells[cell]):
                known.setdefault(key, []).append(look.seconds)
    if not known:
        return None

    def cost(row: Row) -> float:
        return next(mean(known[key]) for key in _alike(row) if key in known)

    total = sum(cost(cells[cell]) for cell, look in looks.items() if look.state in ("to do", "begun"))
    total += sum(count * cost(row) for row, count in experiment.waiting().items())
    return total / max(1, jobs)


def _alike(row: Row) -> list[Any]:
    return [(row.data, row.system, row.draw), (row.data,), ()]


def in_words(seconds: float) -> str:
    """Return a time for people: 42 s, 12 min, 3 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
