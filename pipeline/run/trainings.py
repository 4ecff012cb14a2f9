"""The finished trainings of a run and their scores, as plain data."""

from collections.abc import Sequence
from typing import Any

from ...manifests.errors import StageError
from ...manifests.run import RunFolder
from ...manifests.trial import RUN, Trial
from ...stages.learning.metrics import read_metrics

__all__ = ["finished_trainings"]


def finished_trainings(
    run: RunFolder, systems: Sequence[str] = (), seeds: Sequence[int] = ()
) -> list[dict[str, Any]]:
    """Return the metrics.json of every finished training on cached features.

    systems, seeds: the only ones wanted, if given. The trainings are ordered by system as requested, then by
    setting and seed. Raises StageError where there is none.
    """
    run.check_folders()
    trials = {Trial.of(path.parent) for path in run.models.glob("*/seed-*/metrics.json")}
    finished = [trial for trial in trials if trial and run.record(f"train-{trial.name}").is_file()]
    wanted = [
        trial
        for trial in finished
        if (not systems or trial.system in systems) and (not seeds or trial.seed in seeds)
    ]
    if not wanted:
        raise StageError(
            f"{run.path} holds no finished training{' of these' if systems or seeds else ''}; "
            "run `hmnet-pipe train` first"
        )
    wanted.sort(
        key=lambda trial: (
            systems.index(trial.system) if systems else 0,
            trial.system,
            trial.features,
            trial.recipe != RUN,
            trial.shots,
            trial,
        )
    )
    return [read_metrics(run.model(trial)) for trial in wanted]
