"""What came out of a grid, as plain data: a row for each setting, with the published scores beside it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import mean, stdev
from typing import Any

from ...manifests.errors import InputError
from ...manifests.run import RunFolder
from ...stages.learning.significance import Difference, compare, holm
from ...stages.systems.published import PUBLISHED, PUBLISHED_TRANSFER, Published
from ..run.trainings import qualified, scored_predictions, test_counts
from .cells import Cell, Experiment, Row
from .grid import Draw

__all__ = ["Result", "Spread", "results"]

# The trials of a randomisation and of a bootstrap.
_DRAWS = 10_000
_SCORES = ("precision", "recall", "f1")


@dataclass(frozen=True)
class Spread:
    """A score over trainings, as shares of 1. deviation: the sample's; None for one training."""

    mean: float
    deviation: float | None
    least: float
    most: float


@dataclass(frozen=True)
class Result:
    """A row of a grid's table.

    chosen: the values that the first training has chosen, by key of [train]. done, wanted: trainings.
    metrics: the metrics.json of each finished one. missing: why trainings failed, by their titles. published:
    the scores of the paper on this data set, in percent, never mixed with those of runs. x, x_label: of its
    data in a figure. differences: from other rows, by their names; corrected: their p-values, corrected for
    all that the table tests.
    """

    table: str
    data: str
    system: str
    name: str
    draw: Draw
    chosen: Mapping[str, float]
    done: int
    wanted: int
    metrics: Sequence[Mapping[str, Any]] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    published: Published | None = None
    x: float | None = None
    x_label: str = ""
    differences: Mapping[str, Difference] = field(default_factory=dict)
    corrected: Mapping[str, float] = field(default_factory=dict)

    def spread(self, split: str, score: str = "f1", group: str = "") -> Spread | None:
        """Return a score of a split over the trainings, F1 averaged as it is and never made from P and R.

        group: the scores of one group of mentions alone.
        """
        scores = [one[split] for one in self.metrics if one[split] is not None]
        if group:
            scores = [one["per_group"][group] for one in scores if group in one["per_group"]]
        values = [one[score] for one in scores]
        if not values:
            return None
        return Spread(mean(values), stdev(values) if len(values) > 1 else None, min(values), max(values))

    def to_json(self) -> dict[str, Any]:
        spreads = {
            split: {score: (found := self.spread(split, score)) and asdict(found) for score in _SCORES}
            for split in ("valid", "test")
        }
        return {
            **{name: getattr(self, name) for name in ("table", "data", "system", "name", "done", "wanted")},
            "draw": asdict(self.draw),
            "chosen": dict(self.chosen),
            "missing": dict(self.missing),
            **spreads,
            "published": self.published and asdict(self.published),
            "differences": {
                name: {**asdict(one), "p_holm": self.corrected[name]}
                for name, one in self.differences.items()
            },
            "trainings": list(self.metrics),
        }


def results(experiment: Experiment, against: Sequence[str] = ()) -> list[Result]:
    """Return the table of a grid, in its order, and below it predictions that its runs were given.

    against: systems from which to test the difference of every other one on the same data and draw; where
    several are there, it is the first. Tables of the grid that name others with `against` are tested too.
    Raises InputError for a system that is none of the grid.
    """
    lines = [*_trained(experiment), *_given(experiment)]
    for name in against:
        if not any(line.result.system == name for line in lines):
            raise InputError(f"--against {name}: {experiment.grid.path} does not train it")
    tested: dict[tuple[int, str], Difference] = {}
    for number, line in enumerate(lines):
        for name, base in _bases(line, lines, against).items():
            if base is not line and (difference := _difference(line, base)) is not None:
                tested[number, name] = difference
    corrected = dict(zip(tested, holm([one.p for one in tested.values()]), strict=True))
    return [
        replace(
            line.result,
            differences={name: one for (row, name), one in tested.items() if row == number},
            corrected={name: p for (row, name), p in corrected.items() if row == number},
        )
        for number, line in enumerate(lines)
    ]


def _bases(line: "_Line", lines: Sequence["_Line"], against: Sequence[str]) -> dict[str, "_Line"]:
    """Return the rows from which the difference of a row is tested, by their names in the table."""
    found: dict[str, _Line] = {}
    beside = {other.result.system: other for other in reversed(lines) if other.beside == line.beside}
    for name in [name for name in against if name in beside][:1]:
        found[name] = beside[name]
    for other in lines:
        same = (other.result.data, other.result.system) == (line.result.data, line.result.system)
        if same and other.result.table in line.against and other.result.draw in (Draw(), line.result.draw):
            found.setdefault(other.result.table, other)
    return found


@dataclass(frozen=True)
class _Line:
    """A row with what its difference from another is tested on.

    beside: what both have in common. pairs: metrics.json by seed and subset. against: the tables that its own
    is compared with.
    """

    result: Result
    run: RunFolder
    beside: tuple[str, str, Draw]
    pairs: Mapping[tuple[int, int], Mapping[str, Any]]
    against: tuple[str, ...] = ()


def _trained(experiment: Experiment) -> Iterator[_Line]:
    for row in experiment.rows:
        looks = {pair: experiment.look(cell) for pair, cell in experiment.trained(row).items()}
        pairs = {pair: look.metrics for pair, look in looks.items() if look.metrics is not None}
        result = _result(experiment, row, list(pairs.values()))
        beside = (row.block.name, row.data, row.draw)
        yield _Line(result, experiment.run(row.data), beside, pairs, row.block.against)


def _given(experiment: Experiment) -> Iterator[_Line]:
    """Yield a row for each system whose predictions were given, beside the first table on all samples."""
    whole = {row.data: row for row in reversed(experiment.rows) if row.draw == Draw()}
    for data, row in whole.items():
        run = experiment.run(data)
        systems: dict[str, dict[tuple[int, int], Mapping[str, Any]]] = {}
        for metrics in scored_predictions(run):
            systems.setdefault(metrics["system"], {})[metrics["seed"], 1] = metrics
        for system, pairs in systems.items():
            name = qualified(system, next(iter(pairs.values())).get("qualifiers", ()))
            found = list(pairs.values())
            result = Result(row.block.name, data, system, name, Draw(), {}, len(found), len(found), found)
            yield _Line(result, run, (row.block.name, data, Draw()), pairs)


def _difference(line: _Line, base: _Line) -> Difference | None:
    """Return the difference of two rows over the pairs of seeds that both have, or None."""
    counts = [
        (test_counts(line.run, metrics), test_counts(base.run, base.pairs[pair]))
        for pair, metrics in line.pairs.items()
        if pair in base.pairs and metrics["test"] is not None and base.pairs[pair]["test"] is not None
    ]
    if not counts:
        return None
    return compare([one for one, _ in counts], [other for _, other in counts], trials=_DRAWS)


def _result(experiment: Experiment, row: Row, metrics: Sequence[Mapping[str, Any]]) -> Result:
    recipe = experiment.chosen(row)
    of_row: list[Cell] = list({*experiment.first(row).values(), *experiment.trained(row).values()})
    looks = {cell: experiment.look(cell) for cell in sorted(of_row)}
    data_set = experiment.grid.data[row.data].published
    published = PUBLISHED_TRANSFER if row.block.start else PUBLISHED
    whole = row.draw == Draw()
    return Result(
        table=row.block.name,
        data=row.data,
        system=row.system,
        name=qualified(row.system, metrics[0].get("qualifiers", ()) if metrics else ()),
        draw=row.draw,
        chosen=row.candidates[recipe] if recipe is not None else {},
        done=len(metrics),
        wanted=len(row.pairs),
        metrics=metrics,
        missing={cell.title: look.reason for cell, look in looks.items() if look.state == "failed"},
        x=experiment.grid.data[row.data].x,
        x_label=experiment.grid.data[row.data].x_label,
        published=published.get(row.system, {}).get(data_set) if whole else None,
    )
