"""run.toml: what a run is. One table for each kind of stage, whose keys are the fields of its settings.

`prepare` writes the file from a preset; it is edited by hand, and an option given to a command is written
into it, so that the file always says how the run was made. An unknown table or key is an error.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import tomlkit

from ...manifests.advice import typed
from ...manifests.errors import InputError, StageError, unknown_name
from ...manifests.files import read_text, reason_of, write_text
from ...manifests.run import RunFolder
from ...manifests.schemas import TASKS
from ...stages.base.stage import Stage
from ...stages.learning.recipe import Recipes, TrainSettings, check_recipe
from ...stages.vision.sets import FeatureSet
from .graph import SETTINGS, build_stage
from .recipes import PRESETS

__all__ = ["RunConfig"]

S = TypeVar("S")

# Keys that earlier versions wrote, with the only value that they may still have, and what replaces them.
_GONE = {("train", "shots"): (0, "give --shots to `hmnet-pipe train`, which names the training after it")}


@dataclass(frozen=True)
class RunConfig:
    """The content of run.toml.

    tables: the settings of each kind of stage, by its name. sets: the run's own feature sets, by name.
    recipes: its own recipes of trainings, by name. starts: the folders of the models that trainings start
    from, by the first digits of their digests.
    """

    preset: str
    task: str
    tables: Mapping[str, Any]
    sets: Mapping[str, FeatureSet] = field(default_factory=dict)
    recipes: Recipes = field(default_factory=dict)
    starts: Mapping[str, str] = field(default_factory=dict)

    def of(self, settings: type[S]) -> S:
        """Return the settings of this type."""
        return next(table for table in self.tables.values() if isinstance(table, settings))

    def stage(self, kind: str, run: RunFolder, member: Any = None) -> Stage:
        """Return a stage of this run; `member` is which one of several of its kind (a Trial)."""
        return build_stage(self, run, kind, member)

    def override(self, table: str, options: Mapping[str, Any]) -> "RunConfig":
        """Return this configuration with some keys of one table changed; None changes nothing."""
        given = {key: value for key, value in options.items() if value is not None}
        return replace(self, tables={**self.tables, table: replace(self.tables[table], **given)})

    def override_known(self, table: str, values: Mapping[str, Any]) -> "RunConfig":
        """Return `override` with those of `values` that are keys of the table."""
        known = [field.name for field in fields(SETTINGS[table])]
        return self.override(table, {name: values[name] for name in known if name in values})

    def write(self, path: Path) -> None:
        """Write run.toml, whole or not at all, with each key's help beside it.

        A file that already says the same is left alone.
        """
        document = tomlkit.document()
        document.add(
            tomlkit.comment(
                "What this run is. Edit it and run the stages again: "
                "only what depends on a change is made again."
            )
        )
        document.add("preset", tomlkit.item(self.preset))
        document.add("task", tomlkit.item(self.task))
        for name, settings in self.tables.items():
            table = tomlkit.table()
            for each in fields(settings):
                value = getattr(settings, each.name)
                if value is None or each.name == "task":  # task stands above the tables
                    continue
                item = tomlkit.item(str(value) if isinstance(value, Path) else value)
                if "help" in each.metadata:
                    item.comment(each.metadata["help"])
                table.add(each.name, item)
            document.add(name, table)
        if self.sets:
            own = tomlkit.table(is_super_table=True)
            for name, feature_set in self.sets.items():
                own.add(name, tomlkit.item(feature_set.to_table()))
            document.add("features", own)
        if self.recipes:
            tables = tomlkit.table(is_super_table=True)
            for name, recipe in self.recipes.items():
                tables.add(name, tomlkit.item(dict(recipe)))
            document.add("recipes", tables)
        if self.starts:
            document.add("starts", tomlkit.item(dict(self.starts)))
        text = tomlkit.dumps(document)
        if not path.is_file() or read_text(path) != text:
            write_text(path, text)

    @classmethod
    def read(cls, path: Path) -> "RunConfig":
        """Read run.toml.

        Raises StageError where there is none, and InputError where it is wrong, which names the file and the
        key.
        """
        try:
            values = tomllib.loads(read_text(path))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StageError(
                f"{path.parent} is not a run (no {path.name}); run `{typed('prepare', path.parent)}` first"
            ) from error
        except OSError as error:
            raise InputError(
                f"{path} cannot be read ({reason_of(error)}); put the run's settings there"
            ) from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is not valid TOML: {reason_of(error)}") from error
        RunFolder(path.parent).check_folders()
        return cls.of_values(values, path)

    @classmethod
    def of_values(cls, values: Mapping[str, Any], path: Path) -> "RunConfig":
        """Return the configuration in the tables of a parsed run.toml.

        Raises InputError where one is wrong, which names `path` and the key.
        """
        if unknown := set(values) - {"preset", "task", "features", "recipes", "starts", *SETTINGS}:
            raise InputError(
                f"{path}: unknown key {sorted(unknown)[0]!r}; known are preset, task and the tables "
                f"{', '.join(SETTINGS)}, starts, features.NAME and recipes.NAME"
            )
        task = values.get("task")
        if task not in TASKS:
            raise InputError(f"{path}: task must be one of {', '.join(TASKS)}, not {task!r}")
        preset = values.get("preset", "custom")
        if not isinstance(preset, str) or preset not in PRESETS:
            raise unknown_name(f"{path}: preset", str(preset), PRESETS)
        tables = {table: values.get(table, {}) for table in SETTINGS}
        for table, content in tables.items():
            if not isinstance(content, dict):
                raise InputError(
                    f"{path}: {table} must be a table, [{table}] with a line for each key, "
                    f"not {content!r:.80}"
                )
        tables["prepare"] = {**tables["prepare"], "task": task}
        settings = {table: _settings(path, table, content) for table, content in tables.items()}
        recipes = _recipes(path, values.get("recipes", {}), settings["train"])
        starts = values.get("starts", {})
        if not isinstance(starts, dict) or not all(isinstance(each, str) for each in starts.values()):
            raise InputError(f"{path}: [starts] has a line for each model, DIGITS = 'FOLDER'")
        sets = _feature_sets(path, values.get("features", {}))
        return cls(preset, task, settings, sets, recipes, starts)


def _feature_sets(path: Path, tables: Any) -> dict[str, FeatureSet]:
    """Return the feature sets of the tables [features.NAME]."""
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise InputError(f"{path}: [features] holds one table per feature set, [features.NAME]")
    try:
        return {name: FeatureSet.of_table(name, table) for name, table in tables.items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _recipes(path: Path, tables: Any, train: TrainSettings) -> Recipes:
    """Return the recipes of the tables [recipes.NAME]."""
    if not isinstance(tables, dict):
        raise InputError(f"{path}: [recipes] holds one table per recipe, [recipes.NAME]")
    try:
        for name, table in tables.items():
            check_recipe(name, table, train)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return tables


def _settings(path: Path, table: str, values: Mapping[str, Any]) -> Any:
    """Return the settings of one table."""
    known = {field.name: field for field in fields(SETTINGS[table])}
    given: dict[str, Any] = {}
    for key, value in values.items():
        if (table, key) in _GONE:
            left, instead = _GONE[table, key]
            if value != left:
                raise InputError(f"{path}: {key} is no longer a key of [{table}]; remove it and {instead}")
            continue
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r} in [{table}]; known are {', '.join(known)}")
        # A path is a string in the file.
        is_path = known[key].type in (Path, Path | None) and isinstance(value, str)
        given[key] = Path(value) if is_path else value
    try:
        return SETTINGS[table](**given)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except TypeError as error:
        missing = [name for name, field in known.items() if name not in given and field.default is MISSING]
        raise InputError(f"{path}: [{table}] lacks {missing[0]!r}") from error
