"""run.toml: what a run is. One table a stage, whose keys are the fields of the stage's settings.

`prepare` writes the file from a preset; it is edited by hand, and an option given to a command is written into it, so that the file
always says how the run was made. An unknown table or key is an error.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import tomlkit

from ...manifests.errors import InputError, StageError
from ...manifests.files import write_text
from ...manifests.run import RunFolder
from ...manifests.schemas import TASKS
from ...stages.detect.settings import DetectSettings
from ...stages.detect.stage import Detect
from ...stages.extract.settings import ExtractSettings
from ...stages.extract.stage import Extract
from ...stages.finetune.settings import FinetuneSettings
from ...stages.finetune.stage import Finetune
from ...stages.learning.recipe import TrainSettings
from ...stages.prepare.settings import PrepareSettings
from ...stages.prepare.stage import Prepare
from ...stages.text.encoders.files import DEMO_ENCODER
from ...stages.train.stage import Train

__all__ = ["PRESETS", "SETTINGS", "RunConfig", "preset"]


# The paper's appendix B. Everything that is not said here is the default of the stage's settings.
_MNER: dict[str, Any] = {"batch_size": 8, "learning_rate": 3e-5, "epochs": 30, "first_evaluation": 16}
_MRE: dict[str, Any] = {"batch_size": 32, "learning_rate": 1e-5, "epochs": 12, "first_evaluation": 8}
PRESETS: dict[str, dict[str, Any]] = {
    "custom": {"train": {"first_evaluation": 1}},
    "twitter2015": {"task": "ner", "train": _MNER},
    "twitter2017": {"task": "ner", "train": _MNER},
    "mnre": {"task": "re", "train": _MRE},
    "demo": {
        "detect": {"detector": "demo_fasterrcnn", "min_score": 0.7},
        "extract": {"backbone": "demo_resnet", "size": 112},
        "train": {
            "encoder": DEMO_ENCODER,
            "batch_size": 16,
            "learning_rate": 2e-4,
            "head_learning_rate": 2e-3,
            "fusion_learning_rate": 5e-4,
        },
        "finetune": {"start": "train", "epochs": 2, "unfreeze": 2, "backbone_learning_rate": 2e-4},
        # A relation is decided by what stands beside a person, which is learned sooner than what a name is.
        "train by task": {
            "ner": {"epochs": 5, "first_evaluation": 3},
            "re": {"epochs": 3, "first_evaluation": 2},
        },
    },
}


@dataclass(frozen=True)
class RunConfig:
    """The content of run.toml."""

    preset: str
    task: str
    prepare: PrepareSettings
    detect: DetectSettings
    extract: ExtractSettings
    train: TrainSettings
    finetune: FinetuneSettings

    def stage(
        self, name: str, run: RunFolder, *, system: str = "hmnet", seed: int = 1
    ) -> Prepare | Detect | Extract | Train | Finetune:
        """The stage `name` of this run; `system` and `seed` are for "train" and "finetune"."""
        if name == "prepare":
            return Prepare(run, self.prepare)
        if name == "detect":
            return Detect(run, self.detect)
        if name == "extract":
            return Extract(run, self.extract, self.detect.objects)
        if name == "finetune":
            return Finetune(
                run,
                self.train,
                self.task,
                system,
                seed,
                self.finetune,
                Extract(run, self.extract, self.detect.objects),
            )
        return Train(run, self.train, self.task, system, seed)

    def override(self, stage: str, options: Mapping[str, Any]) -> "RunConfig":
        """The same configuration with some keys of one table changed; an option that is None was not given."""
        given = {key: value for key, value in options.items() if value is not None}
        return replace(self, **{stage: replace(getattr(self, stage), **given)})

    def write(self, path: Path) -> None:
        """Write run.toml, whole or not at all, with each key's help beside it; a file that says the same already is left alone."""
        document = tomlkit.document()
        document.add(
            tomlkit.comment(
                "What this run is. Edit and run the stages again: only what depends on a change is made again."
            )
        )
        document.add("preset", tomlkit.item(self.preset))
        document.add("task", tomlkit.item(self.task))
        for stage in SETTINGS:
            table = tomlkit.table()
            settings = getattr(self, stage)
            for field in fields(settings):
                value = getattr(settings, field.name)
                if value is None or (stage == "prepare" and field.name == "task"):
                    continue
                item = tomlkit.item(str(value) if isinstance(value, Path) else value)
                if "help" in field.metadata:
                    item.comment(field.metadata["help"])
                table.add(field.name, item)
            document.add(stage, table)
        text = tomlkit.dumps(document)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)

    @classmethod
    def read(cls, path: Path) -> "RunConfig":
        """Read run.toml. Raises StageError where there is none, InputError that names the file and the key where it is wrong."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise StageError(
                f"{path.parent} is not a run (no {path.name}); run `hmnet-pipe prepare {path.parent}` first"
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not valid TOML: {error}") from error
        return cls.of_values(values, path)

    @classmethod
    def of_values(cls, values: Mapping[str, Any], path: Path) -> "RunConfig":
        """The configuration in the tables of a parsed run.toml. Raises InputError that names `path` and the key where one is wrong."""
        if unknown := set(values) - {"preset", "task", *SETTINGS}:
            raise InputError(
                f"{path}: unknown key {sorted(unknown)[0]!r}; known are preset, task and the tables {', '.join(SETTINGS)}"
            )
        task = values.get("task")
        if task not in TASKS:
            raise InputError(f"{path}: task must be one of {', '.join(TASKS)}, not {task!r}")
        tables = {**values, "prepare": {**values.get("prepare", {}), "task": task}}
        settings = {stage: _settings(path, stage, tables.get(stage, {})) for stage in SETTINGS}
        return cls(values.get("preset", "custom"), task, **settings)


SETTINGS: dict[str, type[Any]] = {
    "prepare": PrepareSettings,
    "detect": DetectSettings,
    "extract": ExtractSettings,
    "train": TrainSettings,
    "finetune": FinetuneSettings,
}


def _settings(path: Path, stage: str, values: Mapping[str, Any]) -> Any:
    """The settings of one table, each value of its field's type."""
    known = {field.name: field for field in fields(SETTINGS[stage])}
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r} in [{stage}]; known are {', '.join(known)}")
        given[key] = _typed(f"{path}: {key} in [{stage}]", known[key].type, value)
    try:
        return SETTINGS[stage](**given)
    except TypeError as error:
        missing = [name for name, field in known.items() if name not in given and field.default is MISSING]
        raise InputError(f"{path}: [{stage}] lacks {missing[0]!r}") from error


def _typed(where: str, kind: Any, value: Any) -> Any:
    if kind in (Path, Path | None):
        kind, value = Path, Path(value) if isinstance(value, str) else value
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind and not isinstance(value, kind if kind is Path else ()):
        raise InputError(f"{where} must be of type {kind.__name__}, not {value!r}")
    return value


def preset(name: str, *, task: str | None, text: Path, images: Path | None, format: str) -> RunConfig:
    """A new run's configuration. Raises InputError for an unknown preset, or where the task is neither given nor the preset's."""
    if name not in PRESETS:
        raise InputError(f"preset {name!r} is not one of {', '.join(PRESETS)}")
    values = PRESETS[name]
    own_task = values.get("task")
    if task is None and own_task is None:
        raise InputError(f"--task is needed with --preset {name}: ner (entities) or re (relations)")
    if task is not None and own_task is not None and task != own_task:
        raise InputError(f"--preset {name} is for --task {own_task}, not {task}")
    chosen = task or own_task
    if chosen not in TASKS:
        raise InputError(f"--task must be one of {', '.join(TASKS)}, not {chosen!r}")
    recipe = {**(_MNER if chosen == "ner" else _MRE), "first_evaluation": 1} if name == "custom" else {}
    return RunConfig(
        name,
        chosen,
        PrepareSettings(text=text, images=images, task=chosen, format=format),
        DetectSettings(**values.get("detect", {})),
        ExtractSettings(**values.get("extract", {})),
        TrainSettings(
            **{**recipe, **values.get("train", {}), **values.get("train by task", {}).get(chosen, {})}
        ),
        FinetuneSettings(**values.get("finetune", {})),
    )
