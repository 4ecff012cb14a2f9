"""One training of a grid, wherever it runs: in this process, in one of several, or on a Dask worker."""

import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...manifests.errors import HmnetPipeError, in_one_line
from ...manifests.files import disk_error
from ...manifests.run import RunFolder
from ...stages.base.tools import Tools
from ..run.config import RunConfig
from ..run.locks import Held
from ..run.runner import run_stage
from .cells import Cell

__all__ = ["CellUnit", "Outcome", "train_cell"]

# Two trainings in one process would draw from each other's random numbers.
_ONE = threading.Lock()


@dataclass(frozen=True)
class CellUnit:
    """A training as a unit of work.

    threads: those of its process; 0: as many as torch takes, -1: as many as its worker has.
    """

    cell: Cell
    run: Path
    threads: int = 0
    checkpoint_seconds: float = 60.0

    def __len__(self) -> int:
        return 1

    def halves(self) -> tuple["CellUnit", "CellUnit"]:
        raise AssertionError("a training has no halves")


@dataclass(frozen=True)
class Outcome:
    """How a training of a grid ended.

    state: "done"; "failed", for a reason; or "held", where another process trains it. trace: of a fault.
    """

    state: Literal["done", "failed", "held"]
    reason: str = ""
    trace: str = ""
    said: tuple[str, ...] = ()


def train_cell(unit: CellUnit) -> Outcome:
    """Bring a training up to date through the runner of stages. Raises OSError where the disk is full."""
    said: list[str] = []
    try:
        with _ONE:
            _take_threads(unit.threads)
            run = RunFolder(unit.run)
            stage = RunConfig.read(run.config).stage("train", run, unit.cell.trial)
            run_stage(stage, Tools(say=said.append, checkpoint_seconds=unit.checkpoint_seconds))
    except Held as error:
        return Outcome("held", str(error))
    except HmnetPipeError as error:
        return Outcome("failed", str(error), said=_warnings(said))
    except Exception as error:
        if disk_error(error) is not None:
            raise
        # A fault of one system, or a device without memory, costs its own training.
        return Outcome("failed", in_one_line(error), traceback.format_exc(), _warnings(said))
    return Outcome("done", said=_warnings(said))


def _warnings(said: list[str]) -> tuple[str, ...]:
    """Return what a user has to know of a training that ran among many."""
    return tuple(line for line in said if line.startswith("warning: "))


def _take_threads(threads: int) -> None:
    if not threads:
        return
    import torch

    if threads < 0:
        from distributed import get_worker

        threads = get_worker().state.nthreads
    torch.set_num_threads(threads)
