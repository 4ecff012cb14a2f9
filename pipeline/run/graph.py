"""The one list of the stages: the name of each, its settings, and which members of its kind a run holds.

Status, verify, lock, reproduce, make and the demonstration ask it. A new stage is a folder of its own and one
line in KINDS.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ...cache.spec import SCENE
from ...manifests.errors import InputError
from ...manifests.run import DEFAULT_SET, SCENE_SET, RunFolder, extract_name
from ...manifests.trial import Trial
from ...stages.base.stage import Stage
from ...stages.dependencies.settings import DependencySettings
from ...stages.dependencies.stage import Dependencies
from ...stages.detect.given import detect_stage
from ...stages.detect.settings import DetectSettings
from ...stages.extract.settings import ExtractSettings
from ...stages.extract.stage import Extract
from ...stages.finetune.settings import FinetuneSettings
from ...stages.finetune.stage import Finetune
from ...stages.learning.recipe import Recipes, TrainSettings
from ...stages.prepare.settings import PrepareSettings
from ...stages.prepare.stage import Prepare
from ...stages.scenes.settings import SceneSettings
from ...stages.scenes.stage import Scenes
from ...stages.train.stage import Train
from ...stages.vision.sets import FeatureSet, feature_set

__all__ = [
    "KINDS",
    "SETTINGS",
    "Kind",
    "Tables",
    "build_stage",
    "stage_named",
    "stages_of",
    "view_source",
    "with_before",
]

S = TypeVar("S")

# The training that a command uses where no trial is named.
_TRIAL = Trial("hmnet")


class Tables(Protocol):
    """What a stage is built from: the content of run.toml."""

    @property
    def task(self) -> str: ...
    @property
    def sets(self) -> Mapping[str, FeatureSet]: ...
    @property
    def recipes(self) -> Recipes: ...
    @property
    def starts(self) -> Mapping[str, str]: ...

    def of(self, settings: type[S]) -> S:
        """Return the settings of this type."""
        ...


@dataclass(frozen=True)
class Kind:
    """A kind of stage.

    settings: the table of run.toml that has its name.
    build: makes the stage of one member.
    members: which members of the kind a run holds, in order.
    named: the member whose stage has a name, or None where the name belongs to another kind.

    A kind with one stage per run has the one member None.
    """

    name: str
    settings: type[Any]
    build: Callable[[Tables, RunFolder, Any], Stage]
    members: Callable[[RunFolder], Iterable[Any]] = lambda run: (None,)
    named: Callable[[str], Any] | None = None


def view_source(tables: Tables, run: RunFolder, name: str | None = None) -> Extract:
    """Return the stage that makes a feature set, which knows the views of every image."""
    try:
        chosen = feature_set(name or DEFAULT_SET, tables.sets)
    except InputError as error:
        if name not in _feature_sets(run):
            raise
        raise InputError(
            f"{run.path} holds features {name}, and run.toml no longer says what they are: put "
            f"[features.{name}] back, or delete {run.features(name or DEFAULT_SET)} and "
            f"{run.record(extract_name(name or DEFAULT_SET))}"
        ) from error
    detected, of_scenes = tables.of(DetectSettings).objects, tables.of(SceneSettings).objects
    objects = of_scenes if chosen.views == SCENE else detected
    return Extract(run, tables.of(ExtractSettings), objects, chosen)


def _feature_sets(run: RunFolder) -> list[str]:
    """Return the feature sets that a run holds or has started, the default one first."""
    folders = {path.name for path in run.path.glob("features/*") if any(path.glob("*.h5"))} - {SCENE_SET}
    recorded = {path.stem.removeprefix("extract-") for path in (run.path / "stages").glob("extract-*.json")}
    return [DEFAULT_SET, *sorted((folders | recorded) - {DEFAULT_SET})]


def _begun(run: RunFolder, stage: str) -> tuple[None, ...]:
    """Return the one member of a kind that most runs do without: nothing where it was never run."""
    return (None,) if run.record(stage).exists() or run.outcomes(stage).exists() else ()


def _set_named(name: str) -> str | None:
    return name.removeprefix("extract-") if name.startswith("extract-") else None


def _train(tables: Tables, run: RunFolder, trial: Trial | None) -> Train:
    negative = tables.of(PrepareSettings).negative
    settings, trial = tables.of(TrainSettings), trial or _TRIAL
    return Train(run, settings, tables.task, trial, negative, tables.recipes, tables.starts)


def _finetune(tables: Tables, run: RunFolder, trial: Trial | None) -> Finetune:
    trial = trial or _TRIAL
    source = view_source(tables, run, trial.features)
    settings, own = tables.of(TrainSettings), tables.of(FinetuneSettings)
    negative = tables.of(PrepareSettings).negative
    return Finetune(run, settings, tables.task, trial, own, source, negative, tables.recipes)


def _trials(kind: str, prefix: str = "") -> Callable[[RunFolder], list[Trial]]:
    """Return a function that finds the trials of a run that have a model or were interrupted."""

    def find(run: RunFolder) -> list[Trial]:
        folders = (Trial.of(path, prefix) for path in run.models.glob(f"*/{prefix}seed-*"))
        begun = (
            Trial.named(path.stem.removeprefix(f"{kind}-"))
            for path in (run.path / "stages").glob(f"{kind}-*.parts")
        )
        return sorted({trial for trial in (*folders, *begun) if trial is not None})

    return find


def _trial_named(kind: str) -> Callable[[str], Trial | None]:
    return lambda name: Trial.named(name.removeprefix(f"{kind}-")) if name.startswith(f"{kind}-") else None


# In the order of a run: a stage reads what the stages before it made.
KINDS: tuple[Kind, ...] = (
    Kind("prepare", PrepareSettings, lambda tables, run, _: Prepare(run, tables.of(PrepareSettings))),
    Kind("detect", DetectSettings, lambda tables, run, _: detect_stage(run, tables.of(DetectSettings))),
    Kind(
        "scenes",
        SceneSettings,
        lambda tables, run, _: Scenes(run, tables.of(SceneSettings)),
        lambda run: _begun(run, "scenes"),
    ),
    Kind(
        "dependencies",
        DependencySettings,
        lambda tables, run, _: Dependencies(run, tables.of(DependencySettings)),
        lambda run: _begun(run, "dependencies"),
    ),
    Kind("extract", ExtractSettings, view_source, _feature_sets, _set_named),
    Kind("train", TrainSettings, _train, _trials("train"), _trial_named("train")),
    Kind(
        "finetune",
        FinetuneSettings,
        _finetune,
        _trials("finetune", "finetuned-"),
        _trial_named("finetune"),
    ),
)

SETTINGS: dict[str, type[Any]] = {kind.name: kind.settings for kind in KINDS}
"""The settings of each table of run.toml."""


def build_stage(tables: Tables, run: RunFolder, kind: str, member: Any = None) -> Stage:
    """Return the stage of a kind, and of one member where a run may hold several (a Trial)."""
    return next(each for each in KINDS if each.name == kind).build(tables, run, member)


def stages_of(tables: Tables, run: RunFolder) -> list[Stage]:
    """Return the stages of a run in their order."""
    return [kind.build(tables, run, member) for kind in KINDS for member in kind.members(run)]


def stage_named(tables: Tables, run: RunFolder, name: str) -> Stage:
    """Return the stage whose record has this name. Raises InputError where no stage can have it."""
    for kind in KINDS:
        if name == kind.name:
            return kind.build(tables, run, None)
        if kind.named is not None and (member := kind.named(name)) is not None:
            return kind.build(tables, run, member)
    raise InputError(f"no stage of this hmnet-pipe is called {name!r}; it was made by another version")


def with_before(tables: Tables, run: RunFolder, names: Iterable[str]) -> dict[str, Stage]:
    """Return these stages and all that make what they read, by name."""
    found: dict[str, Stage] = {}
    wanted = list(names)
    for name in wanted:  # it grows
        if name not in found:
            found[name] = stage_named(tables, run, name)
            wanted += found[name].before()
    return found
