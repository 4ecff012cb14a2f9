"""The trainings of a grid, which of them are done, and which learning rate the first ones choose.

Nothing is stored twice: a training is done where its run's record says so, and failed where the experiment's
folder holds the reason.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

from ...manifests.errors import HmnetPipeError, InputError, unknown_name
from ...manifests.files import read_text
from ...manifests.record import StageRecord
from ...manifests.run import RunFolder
from ...manifests.trial import AS_PUBLISHED, RUN, Trial
from ...stages.base.stage import Progress
from ...stages.learning.causes import start_token, unread_settings
from ...stages.learning.metrics import read_metrics
from ...stages.learning.recipe import Recipes, TrainSettings
from ...stages.prepare.settings import PrepareSettings
from ...stages.systems.registry import SystemInfo, system_for, system_info
from ..run.config import RunConfig
from ..run.new import configured, prepare_config, with_options
from .grid import Block, Data, Draw, Grid

__all__ = ["Cell", "Experiment", "Look", "Row", "State", "failure_file"]

State = Literal["done", "begun", "to do", "failed", "waits"]
"""Whether a training is finished, has a checkpoint, is still to be started, could not be trained when it was
tried, or waits for others that decide how it is trained."""


@dataclass(frozen=True, order=True)
class Cell:
    """One training of a grid. data: the name of its run in the grid."""

    data: str
    trial: Trial

    @property
    def title(self) -> str:
        return f"{self.data}: {self.trial.title}"


@dataclass(frozen=True)
class Look:
    """What is known of a training. metrics, seconds: of a finished one. progress: of one that was begun."""

    state: State
    metrics: Mapping[str, Any] | None = None
    seconds: float | None = None
    progress: Progress | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Row:
    """The trainings of one row of the table, which averages them: they differ by seed and by subset.

    candidates: the values to choose from, by the name of their recipe; one where there is no choice. pairs:
    seed and subset seed of each training; the first chooses. With `start` of its table, each training starts
    from the model of the same system and seed there.
    """

    block: Block
    data: str
    system: str
    draw: Draw
    candidates: Mapping[str, Mapping[str, float]]
    pairs: tuple[tuple[int, int], ...]

    @property
    def title(self) -> str:
        return ", ".join(filter(None, (f"{self.block.name}, {self.data}: {self.system}", str(self.draw))))

    def trial(self, pair: tuple[int, int], recipe: str, start: str) -> Trial:
        """Return a training of the row. start: the digits of the model that it starts from; "": none."""
        seed, subset = pair
        draw, features = self.draw, self.block.features
        drawn: dict[str, Any] = {"shots": draw.shots, "percent": draw.percent, "natural": draw.natural}
        return Trial(
            self.system, seed, subset_seed=subset, start=start, features=features, recipe=recipe, **drawn
        )


@dataclass
class Experiment:
    """A grid with what is on disk of it. `looks` keeps what was seen of each training; see `forget`.

    only_data, only_systems: the part of the grid that is meant; none: all.
    """

    grid: Grid
    only_data: tuple[str, ...] = ()
    only_systems: tuple[str, ...] = ()
    _looks: dict[Cell, Look] = field(default_factory=dict, init=False, repr=False)
    _configs: dict[str, RunConfig] = field(default_factory=dict, init=False, repr=False)
    _starts: dict[str, dict[str, Path]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for asked, known, what in (
            (self.only_data, self.grid.data, "--data"),
            (self.only_systems, {name for block in self.grid.blocks for name in block.systems}, "--system"),
        ):
            for name in asked:
                if name not in known:
                    raise InputError(f"{what} {name}: {self.grid.path} has only {', '.join(sorted(known))}")

    def run(self, data: str) -> RunFolder:
        return RunFolder(self.grid.data[data].run)

    def config(self, data: str) -> RunConfig:
        """Return run.toml of a run of the grid, as the experiment will have it where it is not there yet.

        Raises InputError or StageError where it cannot be.
        """
        if data not in self._configs:
            self._configs[data] = self._with_recipes(_config(self.grid.data[data]))
        return self._configs[data]

    def _with_recipes(self, config: RunConfig) -> RunConfig:
        config = replace(config, recipes={**config.recipes, **self.grid.recipes})
        own: dict[str, dict[str, Any]] = {}
        for block in self.grid.blocks:
            if block.recipe not in (RUN, AS_PUBLISHED, *config.recipes):
                where = f"{self.grid.path}: trainings.{block.name}.recipe"
                raise unknown_name(where, block.recipe, (RUN, AS_PUBLISHED, *config.recipes))
            base = config.recipes.get(block.recipe, {})
            for system in block.systems:
                candidates = _candidates(block, system_info(system), config)
                own |= {
                    name: {**base, **values} for name, values in candidates.items() if name != block.recipe
                }
        return replace(config, recipes={**config.recipes, **own})

    def recipes(self, data: str) -> Recipes:
        """Return the recipes by which the grid trains on a run, of those that its run.toml is to have."""
        recipes = self.config(data).recipes
        used = {name for row in self.rows if row.data == data for name in (*row.candidates, row.block.recipe)}
        return {name: values for name, values in recipes.items() if name in used}

    @cached_property
    def rows(self) -> list[Row]:
        """Return what is trained, in the order of the grid. Raises InputError where a system cannot be."""
        return [
            row
            for row in self._all_rows
            if (not self.only_data or row.data in self.only_data)
            and (not self.only_systems or row.system in self.only_systems)
        ]

    @cached_property
    def _all_rows(self) -> list[Row]:
        return list(self._rows())

    def _rows(self) -> Iterator[Row]:
        for block in self.grid.blocks:
            pairs = tuple(product(block.seeds, block.subset_seeds))
            for name, draw, system in product(block.data, block.draws, block.systems):
                config = self.config(name)
                candidates = _candidates(block, system_for(system, config.task), config)
                own = pairs if draw != Draw() else tuple((seed, 1) for seed in block.seeds)
                yield Row(block, name, system, draw, candidates, own)

    def chosen(self, row: Row) -> str | None:
        """Return the recipe of a row: the one with the best validation F1 of the first training.

        None while a training that chooses is still to come, or where all of them failed. Of equal ones it is
        the first in the grid.
        """
        if len(row.candidates) == 1:
            return next(iter(row.candidates))
        looks = {recipe: self.look(cell) for recipe, cell in self.first(row).items()}
        if len(looks) < len(row.candidates) or any(
            look.state not in ("done", "failed") for look in looks.values()
        ):
            return None
        scores = {
            recipe: look.metrics["valid"]["f1"]
            for recipe, look in looks.items()
            if look.metrics is not None and look.metrics["valid"] is not None
        }
        return max(scores, key=lambda recipe: scores[recipe], default=None)

    def first(self, row: Row) -> dict[str, Cell]:
        """Return the trainings that choose, by recipe; none before what they start from is there."""
        found = {recipe: self._cell(row, row.pairs[0], recipe) for recipe in row.candidates}
        return {recipe: cell for recipe, cell in found.items() if cell is not None}

    def trained(self, row: Row) -> dict[tuple[int, int], Cell]:
        """Return the trainings that a row is averaged over, by pair, as far as they can be named by now."""
        recipe = self.chosen(row)
        if recipe is None:
            return {}
        found = {pair: self._cell(row, pair, recipe) for pair in row.pairs}
        return {pair: cell for pair, cell in found.items() if cell is not None}

    def _cell(self, row: Row, pair: tuple[int, int], recipe: str) -> Cell | None:
        """Return a training of a row, or None before the model that it starts from is there."""
        start = ""
        if row.block.start:
            folder = self.start(row, pair)
            if folder is None:
                return None
            start = start_token(folder)
            self._starts.setdefault(row.data, {})[start] = folder
        return Cell(row.data, row.trial(pair, recipe, start))

    def start(self, row: Row, pair: tuple[int, int]) -> Path | None:
        """Return the folder of the model that a training of a row starts from, once it is there."""
        source = next(
            other
            for other in self._all_rows
            if (other.block.name, other.system) == (row.block.start, row.system)
            and other.data == (row.block.start_data or other.data)
        )
        cell = self.trained(source).get((pair[0], 1))
        if cell is None or self.look(cell).state != "done":
            return None
        return self.run(cell.data).model(cell.trial)

    def starts(self, data: str) -> dict[str, Path]:
        """Return the folders of the models that trainings of a run start from, by their digits."""
        return self._starts.get(data, {})

    def cells(self) -> dict[Cell, Row]:
        """Return every training that can be named by now, each once, with what it is averaged with."""
        found: dict[Cell, Row] = {}
        for row in self.rows:
            for cell in (*self.first(row).values(), *self.trained(row).values()):
                found.setdefault(cell, row)
        return found

    def waiting(self) -> dict[Row, int]:
        """Return how many trainings of which rows wait for others that decide how they are made."""
        found = {}
        for row in self.rows:
            named = {*self.first(row).values(), *self.trained(row).values()}
            if count := len(row.pairs) + len(row.candidates) - 1 - len(named):
                found[row] = count
        return found

    def look(self, cell: Cell) -> Look:
        """Return what is on disk of a training."""
        if cell not in self._looks:
            self._looks[cell] = self._look(cell)
        return self._looks[cell]

    def forget(self, cell: Cell) -> None:
        """Forget what was seen of a training."""
        self._looks.pop(cell, None)

    def _look(self, cell: Cell) -> Look:
        run = self.run(cell.data)
        config = self.config(cell.data)
        places = {digits: str(folder) for digits, folder in self.starts(cell.data).items()}
        stage = replace(config, starts=places).stage("train", run, cell.trial)
        record = StageRecord.known(run.record(stage.name))
        begun = run.work(stage.name).exists()
        if record is not None or begun:
            try:
                causes = stage.causes()
                there = record is not None and all(
                    stage.output_path(name).exists() for name in record.outputs
                )
                if record is not None and there and record.fingerprint == causes.fingerprint:
                    return Look("done", read_metrics(stage.place), record.facts.get("seconds"))
                if (progress := stage.progress(causes)) is not None:
                    return Look("begun", progress=progress)
            except HmnetPipeError as error:
                return Look("to do", reason=str(error))
        failure = failure_file(self.grid, cell)
        if failure.is_file():
            return Look("failed", reason=read_text(failure).split("\n")[0])
        return Look("to do")


def _candidates(block: Block, info: SystemInfo, config: RunConfig) -> dict[str, dict[str, float]]:
    keys = {*block.search} - {*unread_settings(info)}
    settings = {**vars(config.of(TrainSettings)), **config.recipes.get(block.recipe, {})}
    return block.candidates(keys, settings)


def failure_file(grid: Grid, cell: Cell) -> Path:
    """Return where it stands why a training of a grid could not be trained."""
    return grid.output / "failed" / f"{cell.data}-{cell.trial.name}.txt"


def _config(data: Data) -> RunConfig:
    """Return run.toml of a run with the keys that the grid sets, whether or not it is there yet."""
    run = RunFolder(data.run)
    others = {table: values for table, values in data.tables.items() if table != "prepare"}
    reading = data.tables.get("prepare", {})
    if run.config.exists():
        config = configured(run, others)
        there = vars(config.of(PrepareSettings))
        for key, value in reading.items():
            if there[key] != value:
                raise InputError(
                    f"data.{data.name}: {run.config} has {key} = {there[key]!r} in [prepare], and the grid "
                    f"{value!r}; name another folder with `run`, or prepare this one again"
                )
        return config
    where = data.text, data.images, data.format
    return with_options(prepare_config(run, data.preset, data.task or None, *where, reading), others)
