"""The finished trainings of a run and their scores, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from ...manifests.advice import typed
from ...manifests.errors import InputError, StageError
from ...manifests.run import RunFolder
from ...manifests.schemas import PREDICTIONS
from ...manifests.tables import read_table
from ...manifests.trial import RUN, Trial
from ...stages.learning.columns import Column
from ...stages.learning.metrics import read_metrics

if TYPE_CHECKING:
    from ...stages.learning.significance import Counted

__all__ = [
    "Setting",
    "Spread",
    "differences",
    "finished_trainings",
    "folder_of",
    "qualified",
    "scored_predictions",
    "setting_of",
    "settings_of",
    "test_counts",
    "trial_of",
]

# The trials of a randomisation and of a bootstrap.
_DRAWS = 10_000


@dataclass(frozen=True)
class Spread:
    """A score over several trainings: its mean, and its sample deviation where there are two or more."""

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Setting:
    """Trainings that differ in nothing but seed and subset, and that every table averages."""

    name: str
    trainings: tuple[Mapping[str, Any], ...]

    @property
    def system(self) -> str:
        return str(self.first["system"])

    @property
    def is_given(self) -> bool:
        """Return whether these are predictions that `score` was given."""
        return "given" in self.first

    @property
    def first(self) -> Mapping[str, Any]:
        """Return the training with the smallest seed."""
        return min(self.trainings, key=lambda one: int(one["seed"]))

    def spread(self, split: str, score: str = "f1", within: tuple[str, str] | None = None) -> Spread | None:
        """Return a score on a split over the trainings that have it, or None where none has.

        within: the scores of one type or group alone, ("per_type" or "per_group", its name).
        """
        found = [one[split] for one in self.trainings if one.get(split) is not None]
        if within is not None:
            kind, name = within
            found = [one[kind][name] for one in found if name in one.get(kind, {})]
        values = [one[score] for one in found if score in one]
        if not values:
            return None
        return Spread(mean(values), stdev(values) if len(values) > 1 else None, len(values))


def finished_trainings(
    run: RunFolder, systems: Sequence[str] = (), seeds: Sequence[int] = ()
) -> list[dict[str, Any]]:
    """Return the metrics.json of every finished training on cached features, and of predictions given.

    systems, seeds: the only ones wanted, if given. The trainings are ordered by system as requested, then by
    setting and seed, and predictions that `score` was given come last. Raises StageError where there is none.
    """
    run.check_folders()
    trials = {Trial.of(path.parent) for path in run.models.glob("*/seed-*/metrics.json")}
    finished = [trial for trial in trials if trial and run.record(f"train-{trial.name}").is_file()]
    wanted = [
        trial
        for trial in finished
        if (not systems or trial.system in systems) and (not seeds or trial.seed in seeds)
    ]
    given = [
        metrics
        for metrics in scored_predictions(run)
        if (not systems or metrics["system"] in systems) and (not seeds or metrics["seed"] in seeds)
    ]
    if not wanted and not given:
        raise StageError(
            f"{run.path} holds no finished training{' of these' if systems or seeds else ''}; "
            f"run `{typed('train', run.path)}` first"
        )
    wanted.sort(
        key=lambda trial: (
            systems.index(trial.system) if systems else 0,
            trial.system,
            trial.features,
            trial.recipe != RUN,
            trial.shots,
            trial.percent,
            trial,
        )
    )
    return [*(read_metrics(run.model(trial)) for trial in wanted), *given]


def scored_predictions(run: RunFolder) -> list[dict[str, Any]]:
    """Return the metrics.json of all predictions that `score` was given."""
    return [read_metrics(path.parent) for path in sorted(run.path.glob("scored/*/seed-*/metrics.json"))]


def settings_of(metrics: Sequence[Mapping[str, Any]]) -> list[Setting]:
    """Return trainings by what they have in common, in their order. metrics: their metrics.json."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for one in metrics:
        groups.setdefault(setting_of(one), []).append(one)
    return [Setting(name, tuple(trained)) for name, trained in groups.items()]


def trial_of(metrics: Mapping[str, Any]) -> Trial:
    """Return the trial of a training by its metrics.json."""
    extras = ("shots", "percent", "natural", "subset_seed", "start", "features", "recipe")
    named = {name: metrics[name] for name in extras if name in metrics}
    return Trial(metrics["system"], metrics["seed"], **named)


def folder_of(run: RunFolder, metrics: Mapping[str, Any]) -> Path:
    """Return the folder of a training, or of predictions that `score` was given, by its metrics.json."""
    if "given" in metrics:
        return run.scored(metrics["system"], metrics["seed"])
    return run.model(trial_of(metrics))


def setting_of(metrics: Mapping[str, Any]) -> str:
    """Return what trainings that are averaged have in common: everything but seed and subset."""
    natural = ", natural share of nothing" if metrics.get("natural") else ""
    parts = {
        "recipe": "{}",
        "shots": f"{{}} shots{natural}",
        "percent": "{}% of the samples",
        "started_from": "from {}",
        "features": "on {}",
    }
    named = [words.format(metrics[part]) for part, words in parts.items() if metrics.get(part)]
    return ", ".join([qualified(metrics["system"], metrics.get("qualifiers", ())), *named])


def qualified(system: str, qualifiers: Sequence[str]) -> str:
    """Return the name of a system with what it was trained without, as in `pcnn[learned vectors]`."""
    return f"{system}[{', '.join(qualifiers)}]" if qualifiers else system


def differences(
    run: RunFolder, trained: Sequence[Mapping[str, Any]], against: str
) -> dict[str, dict[str, Any]]:
    """Return how each setting's test F1 differs from that of the system `against`, by setting.

    trained: their metrics.json, those of `against` among them. A row has the mean difference over the seeds
    that both have, the bounds of its 95% interval, its p-value, and the same corrected for the number of rows
    by Holm's method (see stages.learning.significance). Raises InputError where `against` is not there, or
    shares no seed with another.
    """
    from ...stages.learning.significance import compare, holm

    groups: dict[str, dict[Any, Mapping[str, Any]]] = {}
    for one in trained:
        groups.setdefault(setting_of(one), {})[one["seed"], one.get("subset_seed")] = one
    bases = [name for name, ones in groups.items() if next(iter(ones.values()))["system"] == against]
    if not bases:
        raise InputError(f"--against {against}: {run.path} holds no finished training of it; train it first")
    base = groups[bases[0]]
    counted = {key: test_counts(run, one) for key, one in base.items()}
    found: dict[str, dict[str, Any]] = {}
    for name, ones in groups.items():
        if name == bases[0] or not (both := sorted(ones.keys() & base.keys(), key=str)):
            continue
        own = [test_counts(run, ones[key]) for key in both]
        found[name] = asdict(compare(own, [counted[key] for key in both], trials=_DRAWS))
    if not found:
        raise InputError(
            f"--against {against}: no other training has a seed of its trainings; train both alike"
        )
    for row, corrected in zip(found.values(), holm([row["p"] for row in found.values()]), strict=True):
        row["p_holm"] = corrected
    return found


def test_counts(run: RunFolder, metrics: Mapping[str, Any]) -> "Counted":
    """Return what a training's model found in each sentence of the test split."""
    from ...stages.learning.significance import counts_of

    folder = folder_of(run, metrics)
    made_by = f"train {trial_of(metrics).options}"
    columns = ["tokens", "gold", "predicted"]
    table = read_table(folder / "predictions.parquet", PREDICTIONS, made_by, columns)
    labels: list[Column[list[str]]] = [Column(table[name], []) for name in columns[1:]]
    negative = (metrics["test"] or {}).get("negative")
    return counts_of(table["tokens"], *labels, task=metrics["task"], negative=negative)
