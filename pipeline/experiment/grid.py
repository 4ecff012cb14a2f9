"""A grid: the TOML file of an experiment, which names data, systems, seeds, draws, recipes and searches.

    [data.twitter2015]                # a run, and how it is made where it is not there yet
    run = "runs/twitter2015"
    preset = "twitter2015"
    text = "data/twitter2015"
    images = "data/twitter2015_images"

    [trainings.table1]                # a product of lists; several tables make one experiment
    systems = ["bert-crf", "hmnet"]
    seeds = [1, 49, 1234, 2021, 4321]
    search = { learning_rate = [1e-5, 2e-5, 3e-5] }

Paths are as on the command line: relative to the folder that a command is run in. docs/experiments.md has
every key.
"""

import math
import tomllib
from collections.abc import Container, Mapping
from dataclasses import MISSING, dataclass, field, fields
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError, unknown_name
from ...manifests.files import read_text, reason_of
from ...manifests.trial import AS_PUBLISHED, RUN, Trial
from ...stages.learning.recipe import Recipes, TrainSettings, check_recipe
from ...stages.systems.published import DATA_SETS
from ...stages.systems.registry import SYSTEMS
from ..run.graph import SETTINGS

__all__ = ["Block", "Data", "Draw", "Grid", "grid_path", "read_grid"]

SHIPPED = Path(__file__).resolve().parents[2] / "experiments"
"""The folder of the grids that are installed with the package."""

_RATE = "learning_rate"
# What the value of a searched key is called in the name of its recipe.
_SHORT = {_RATE: "lr"}


@dataclass(frozen=True)
class Data:
    """A run of the grid, by the name that its tables show.

    preset, task, text, images, format: of `prepare`, where the run is not there yet. published: the data set
    whose published scores stand beside; "": none. x: where a figure puts it, such as the share of its images
    that are random; x_label: what that is. tables: keys of run.toml that the experiment sets, by table.
    """

    name: str
    run: Path
    preset: str = "custom"
    task: str = ""
    text: Path | None = None
    images: Path | None = None
    format: str = "auto"
    published: str = ""
    x: float | None = None
    x_label: str = ""
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class Draw:
    """Which training samples: of each class, a share of all, or all of them (neither). See Trial."""

    shots: int = 0
    percent: int = 0
    natural: bool = False

    def __str__(self) -> str:
        if self.percent:
            return f"{self.percent}%"
        natural = ", natural share of nothing" if self.natural else ""
        return f"{self.shots} shots{natural}" if self.shots else ""


@dataclass(frozen=True)
class Block:
    """A table [trainings.NAME]: the product of its lists.

    recipe: RUN, AS_PUBLISHED, or a recipe of the grid or of the runs. search: values of keys of [train] to
    choose from, by validation F1 of the first seed and subset. start: the table whose model of the same
    system and seed each training starts from; "": none. start_data: its data, where it has several. against:
    other tables, from whose trainings of the same data, system and seed the difference is tested.
    """

    name: str
    data: tuple[str, ...]
    systems: tuple[str, ...]
    seeds: tuple[int, ...] = (1,)
    shots: tuple[int, ...] = (0,)
    percent: tuple[int, ...] = ()
    natural: tuple[bool, ...] = (False,)
    subset_seeds: tuple[int, ...] = (1,)
    features: str = ""
    recipe: str = RUN
    search: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    start: str = ""
    start_data: str = ""
    against: tuple[str, ...] = ()

    @property
    def draws(self) -> list[Draw]:
        by_class = [Draw(shots, 0, natural and shots > 0) for shots in self.shots for natural in self.natural]
        return list(dict.fromkeys([*by_class, *(Draw(percent=share) for share in self.percent)]))

    def candidates(self, keys: Container[str], settings: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Return the values to choose from, by the name of their recipe, or the one recipe that there is.

        keys: the keys of [train] that change anything for a system; the others are not searched. settings:
        what trainings by `recipe` have already: values that are equal to these have no recipe of their own.
        """
        searched = {key: values for key, values in self.search.items() if key in keys}
        if not searched:
            return {self.recipe: {}}
        base = [] if self.recipe == RUN else [self.recipe]
        found = {}
        for values in (dict(zip(searched, each, strict=True)) for each in product(*searched.values())):
            same = all(settings[key] == value for key, value in values.items())
            name = "_".join([*base, *(_named(key, value) for key, value in values.items())])
            found[self.recipe if same else name] = values
        return found


@dataclass(frozen=True)
class Grid:
    """An experiment. output: the folder of whatever belongs to it and to no run."""

    path: Path
    output: Path
    data: Mapping[str, Data]
    blocks: tuple[Block, ...]
    recipes: Recipes = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.stem


def _named(key: str, value: float) -> str:
    """Return the name of a value in that of a recipe: 3e-5 of learning_rate is lr_3e5."""
    digits, exponent = Decimal(repr(value)).normalize().as_tuple()[1:]
    assert isinstance(exponent, int)
    whole = "".join(map(str, digits)) + "0" * max(0, exponent)
    return f"{_SHORT.get(key, key)}_{whole}" + (f"e{-exponent}" if exponent < 0 else "")


def grid_path(name: Path) -> Path:
    """Return the file of a grid: `name` itself, or the grid of this name that comes with the package.

    Raises InputError where there is none.
    """
    shipped = SHIPPED / f"{name}.toml"
    if name.is_file() or name.suffix == ".toml" or len(name.parts) > 1:
        return name
    if shipped.is_file():
        return shipped
    raise unknown_name("grid", str(name), sorted(path.stem for path in SHIPPED.glob("*.toml")))


def read_grid(path: Path) -> Grid:
    """Read a grid. Raises InputError, which names the file and the key, where something is wrong."""
    try:
        values = tomllib.loads(read_text(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({reason_of(error)}); give the file of a grid") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {reason_of(error)}") from error
    try:
        return _grid(path, values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _grid(path: Path, values: Mapping[str, Any]) -> Grid:
    _check_keys("key", values, ("output", "data", "trainings", "recipes"))
    output = _typed("output", values.get("output", f"runs/experiments/{path.stem}"), str)
    recipes = _tables("recipes", values.get("recipes", {}))
    for name, recipe in recipes.items():
        check_recipe(name, recipe, TrainSettings())
    data = {name: _data(name, table) for name, table in _tables("data", values.get("data", {})).items()}
    if not data:
        raise InputError("there is no run to train on; add a table [data.NAME] with `run`")
    tables = _tables("trainings", values.get("trainings", {}))
    if not tables:
        raise InputError("there is nothing to train; add a table [trainings.NAME] with `systems`")
    blocks = tuple(_block(name, table, tuple(data)) for name, table in tables.items())
    for block in blocks:
        _check_start(block, {other.name: other for other in blocks})
    return Grid(path, Path(output), data, blocks, recipes)


def _tables(where: str, values: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(values, dict) or not all(isinstance(table, dict) for table in values.values()):
        raise InputError(f"{where} must hold tables, [{where}.NAME]")
    return values


def _data(name: str, table: Mapping[str, Any]) -> Data:
    where = f"data.{name}"
    own = [each.name for each in fields(Data) if each.name not in ("name", "tables")]
    _check_keys(f"[{where}] the key", table, (*own, *SETTINGS))
    given = {key: _typed(f"{where}.{key}", table[key], str) for key in own if key in table and key != "x"}
    if "x" in table:
        if type(table["x"]) not in (int, float) or not math.isfinite(table["x"]):
            raise InputError(f"{where}.x must be a number, not {table['x']!r:.80}")
        given["x"] = table["x"]
    if "run" not in given:
        raise InputError(f"[{where}] lacks `run`, the folder of the run")
    for key in ("run", "text", "images"):
        if key in given:
            given[key] = Path(given[key])
    if given.get("published", DATA_SETS[0]) not in DATA_SETS:
        raise unknown_name(f"{where}.published", given["published"], DATA_SETS)
    tables = _tables(where, {key: table[key] for key in SETTINGS if key in table})
    for kind, settings in tables.items():
        keys = [each.name for each in fields(SETTINGS[kind]) if each.default is not MISSING]
        _check_keys(f"[{where}.{kind}] the key", settings, keys)
    return Data(name, tables=tables, **given)


def _check_start(block: Block, blocks: Mapping[str, Block]) -> None:
    """Raise InputError where a block starts from, or is compared with, what is not in the grid."""
    where = f"trainings.{block.name}"
    for name in (*block.against, *([block.start] if block.start else [])):
        if name not in blocks or name == block.name:
            raise unknown_name(f"{where}: the table", name, [name for name in blocks if name != block.name])
    if not block.start:
        return
    source = blocks[block.start]
    if block.start_data not in source.data and (block.start_data or len(source.data) > 1):
        raise unknown_name(f"{where}.start_data", block.start_data, source.data)
    if source.start or source.draws != [Draw()]:
        raise InputError(
            f"[{where}] start: {source.name} draws samples or has a start of its own; name a table on all "
            "samples without `start`"
        )
    for key in ("systems", "seeds"):
        if lacking := [each for each in getattr(block, key) if each not in getattr(source, key)]:
            raise InputError(
                f"[{where}] {key}: {lacking[0]} is not among those of its start, {source.name}; add it "
                "there, or leave it out here"
            )


def _block(name: str, table: Mapping[str, Any], data: tuple[str, ...]) -> Block:
    where = f"trainings.{name}"
    _check_keys(f"[{where}] the key", table, [each.name for each in fields(Block) if each.name != "name"])
    given: dict[str, Any] = {"data": data}
    for key, kind in (
        ("data", str),
        ("systems", str),
        ("seeds", int),
        ("shots", int),
        ("percent", int),
        ("natural", bool),
        ("subset_seeds", int),
        ("against", str),
    ):
        if key in table:
            given[key] = _list(f"{where}.{key}", table[key], kind)
    for key in ("features", "recipe", "start", "start_data"):
        if key in table:
            given[key] = _typed(f"{where}.{key}", table[key], str)
    for each in given["data"]:
        if each not in data:
            raise unknown_name(f"{where}.data", each, data)
    if not given.get("systems"):
        raise InputError(f"[{where}] lacks `systems`, the list of what is trained")
    for each in given["systems"]:
        if each not in SYSTEMS:
            raise unknown_name(f"{where}.systems", each, SYSTEMS)
    given["search"] = _search(where, table.get("search", {}))
    if given["search"] and given.get("recipe") == AS_PUBLISHED:
        raise InputError(
            f"[{where}] a published recipe has nothing to search; leave out `search` or `recipe`"
        )
    if "percent" in given and "shots" not in given:
        given["shots"] = ()
    block = Block(name, **given)
    _check_trials(where, block)
    return block


def _check_trials(where: str, block: Block) -> None:
    """Raise InputError where a seed or a draw of a block is out of its range."""
    try:
        for seed, subset, draw in product(block.seeds, block.subset_seeds, block.draws):
            Trial("hmnet", seed, draw.shots, subset, percent=draw.percent, natural=draw.natural)
    except InputError as error:
        raise InputError(f"[{where}] {error}") from error


def _search(where: str, table: Any) -> dict[str, tuple[float, ...]]:
    if not isinstance(table, dict):
        raise InputError(
            f"[{where}] search must be a table of lists, as in {{ learning_rate = [1e-5, 3e-5] }}"
        )
    found: dict[str, tuple[float, ...]] = {}
    for key, values in table.items():
        known = [each.name for each in fields(TrainSettings) if each.type in (int, float)]
        if key not in known:
            raise unknown_name(f"[{where}] search", key, known)
        numbers = values if isinstance(values, list) else []
        sound = all(type(value) in (int, float) and math.isfinite(value) and value >= 0 for value in numbers)
        if not numbers or not sound:
            raise InputError(f"[{where}] search.{key} must be a list of numbers, not {values!r:.80}")
        found[key] = tuple(dict.fromkeys(numbers))
    return found


def _list(where: str, value: Any, kind: type) -> tuple[Any, ...]:
    """Return a list of one kind, or a lone value of it, as a tuple without repetitions."""
    values = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(_typed(where, each, kind) for each in values))


def _typed(where: str, value: Any, kind: type) -> Any:
    names = {str: "a text", int: "a whole number", bool: "true or false"}
    if type(value) is not kind:
        raise InputError(f"{where} must be {names[kind]}, not {value!r:.80}")
    return value


def _check_keys(kind: str, table: Mapping[str, Any], known: Any) -> None:
    for key in table:
        if key not in known:
            raise unknown_name(kind, key, known)
