"""`hmnet-pipe experiment lock`: the grid and a lock of each of its runs, in a folder beside a paper."""

import shutil
from pathlib import Path

from ...manifests.advice import typed
from ...manifests.errors import StageError
from ...manifests.files import atomic_path, make_folder
from ...stages.base.tools import SILENT, Tools, counted
from ..experiment.cells import Experiment
from .lock import lock_run

__all__ = ["lock_experiment"]


def lock_experiment(experiment: Experiment, output: Path, tools: Tools = SILENT) -> list[Path]:
    """Write grid.toml and NAME.lock for each data of a grid into a folder, and return the files.

    A lock holds the trainings of the grid alone, and what they read. `hmnet-pipe reproduce` makes each again,
    or with --only one training of it. Raises StageError where a training is not done.
    """
    cells = experiment.cells()
    missing = [cell for cell in cells if experiment.look(cell).state != "done"]
    if left := len(missing) + sum(experiment.waiting().values()):
        first = f" ({missing[0].title}, ...)" if missing else ""
        raise StageError(
            f"{counted(left, 'trainings')} of {experiment.grid.path} are not done{first}; run "
            f"`{typed('experiment', 'run', experiment.grid.path)}` and lock again, or leave out of the grid "
            "what cannot be trained"
        )
    make_folder(output)
    paths = [output / "grid.toml"]
    with atomic_path(paths[0]) as temporary:
        shutil.copyfile(experiment.grid.path, temporary)
    for data in dict.fromkeys(cell.data for cell in cells):
        names = {f"train-{cell.trial.name}" for cell in cells if cell.data == data}
        paths.append(lock_run(experiment.run(data), output / f"{data}.lock", tools, names))
    return paths
