"""What came out of a grid, as plain data: a row for each setting, with the published scores beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import mean, stdev
from typing import Any

from ...manifests.errors import InputError
from ...stages.learning.significance import Difference, compare, holm
from ...stages.systems.published import PUBLISHED, Published
from ..run.trainings import qualified, test_counts
from .cells import Cell, Experiment, Row
from .grid import Draw

__all__ = ["Result", "Spread", "results"]

# The trials of a randomisation and of a bootstrap.
_DRAWS = 10_000


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
    the scores of the paper on this data set, in percent, never mixed with those of runs. difference: from the
    system of --against on the same samples; p_holm: its p-value corrected for all rows.
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
    difference: Difference | None = None
    p_holm: float | None = None

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
            split: {score: spread and asdict(spread) for score, spread in found.items()}
            for split in ("valid", "test")
            if (found := {score: self.spread(split, score) for score in ("precision", "recall", "f1")})
        }
        return {
            **{name: getattr(self, name) for name in ("table", "data", "system", "name", "done", "wanted")},
            "draw": asdict(self.draw),
            "chosen": dict(self.chosen),
            "missing": dict(self.missing),
            **spreads,
            "published": self.published and asdict(self.published),
            "difference": self.difference and {**asdict(self.difference), "p_holm": self.p_holm},
            "trainings": list(self.metrics),
        }


def results(experiment: Experiment, against: Sequence[str] = ()) -> list[Result]:
    """Return the table of a grid, in its order.

    against: systems from which to test the difference of every other one on the same data and draw; where
    several are there, it is the first. Raises InputError for one that is none of the grid.
    """
    rows = experiment.rows
    found = [_result(experiment, row) for row in rows]
    for name in against:
        if not any(row.system == name for row in rows):
            raise InputError(f"--against {name}: {experiment.grid.path} does not train it")
    bases: dict[Any, Row] = {}
    for row in sorted(
        (row for row in rows if row.system in against), key=lambda row: against.index(row.system)
    ):
        bases.setdefault(_beside(row), row)
    tested: dict[int, Difference] = {}
    for number, row in enumerate(rows):
        base = bases.get(_beside(row), row)
        if base is not row and (difference := _difference(experiment, row, base)) is not None:
            tested[number] = difference
    corrected = dict(zip(tested, holm([one.p for one in tested.values()]), strict=True))
    return [
        replace(one, difference=tested.get(number), p_holm=corrected.get(number))
        for number, one in enumerate(found)
    ]


def _beside(row: Row) -> tuple[str, str, Draw]:
    return row.block.name, row.data, row.draw


def _difference(experiment: Experiment, row: Row, base: Row) -> Difference | None:
    """Return the difference of two rows over the pairs of seeds that both have, or None."""
    run = experiment.run(row.data)
    ours, theirs = (_finished(experiment, each) for each in (row, base))
    counts = [
        (test_counts(run, ours[pair]), test_counts(run, theirs[pair]))
        for pair in ours
        if pair in theirs and ours[pair]["test"] is not None
    ]
    if not counts:
        return None
    return compare([one for one, _ in counts], [other for _, other in counts], trials=_DRAWS)


def _finished(experiment: Experiment, row: Row) -> dict[tuple[int, int], Mapping[str, Any]]:
    looks = {pair: experiment.look(cell) for pair, cell in experiment.trained(row).items()}
    return {pair: look.metrics for pair, look in looks.items() if look.metrics is not None}


def _result(experiment: Experiment, row: Row) -> Result:
    metrics = list(_finished(experiment, row).values())
    recipe = experiment.chosen(row)
    of_row: list[Cell] = list({*row.first.values(), *experiment.trained(row).values()})
    looks = {cell: experiment.look(cell) for cell in sorted(of_row)}
    data_set = experiment.grid.data[row.data].published
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
        published=PUBLISHED.get(row.system, {}).get(data_set) if whole else None,
    )
