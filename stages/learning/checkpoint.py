"""What a killed training resumes from: the last committed checkpoint, and the best model so far beside it."""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...manifests.errors import StageError
from ...manifests.files import (
    atomic_path,
    check_regular,
    reason_of,
    remove_file,
    remove_temporaries,
    write_text,
)
from ..base.writing import writing
from .scores import Scores

__all__ = ["Checkpoints", "Progress"]

# The largest share of the time that writing checkpoints may take.
_LARGEST_SHARE = 0.05


@dataclass
class Progress:
    """How far a training is and how it went: what a checkpoint holds besides tensors.

    It is the same on every rank.

    epoch: finished epochs. step: updates. batch: finished batches of the current epoch. seconds: what the
    current epoch took so far. history: one row (manifests.schemas.HISTORY) for each finished epoch.
    best_epoch: the epoch whose model is kept, 0 before there is one. best_scores: its scores on the
    validation split, None without one.
    """

    epoch: int = 0
    step: int = 0
    batch: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_scores: Scores | None = None

    def dumps(self) -> str:
        """Return this progress as JSON text, each value by its name."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> "Progress | None":
        """Return the progress that `dumps` wrote, or None for one that another version wrote."""
        values = json.loads(text)
        known = isinstance(values, dict) and values.keys() == asdict(cls()).keys()
        return cls(**values) if known else None


class Checkpoints:
    """The folder of one training's checkpoint.

    A new state replaces the old one only when it is whole and on disk.

    checkpoint.pt: the state. best-<epoch>.safetensors: the model of the best epoch, which would otherwise
    cost as much memory as the model itself. progress.json: how far the training is, for people and for
    `status`.
    """

    def __init__(self, folder: Path, every: float = 60.0) -> None:
        """Keep the checkpoint in `folder`.

        every: the least seconds between two checkpoints; 0: one after each update, whatever it costs.
        """
        self.folder, self.every = folder, every
        self._saved = time.monotonic()
        self._cost = 0.0  # seconds that the last save took

    @property
    def _path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def is_due(self) -> bool:
        """Return whether it is time for the next `save`."""
        wait = max(self.every, self._cost / _LARGEST_SHARE) if self.every else 0.0
        return time.monotonic() - self._saved >= wait

    def keep_best(self, epoch: int, state: dict[str, Tensor]) -> None:
        """Write the model of `epoch`.

        The one before it stays until the next `save`: the saved state may name it.
        """
        with atomic_path(self._best(epoch)) as temporary, writing(temporary):
            save_file({name: value.detach().contiguous() for name, value in state.items()}, temporary)

    def best(self, epoch: int) -> dict[str, Tensor]:
        """Return the model that `keep_best` wrote for `epoch`. Raises StageError where it is damaged."""
        path = self._best(epoch)
        try:
            check_regular(path)
            return load_file(path)
        except Exception as error:  # damaged files break their readers in any way
            raise self.damaged(error, path) from error

    def save(self, state: dict[str, Any], best_epoch: int, progress: dict[str, int]) -> None:
        """Commit `state`, of tensors and plain values, and drop the best models of other epochs than
        `best_epoch`.
        """
        started = time.monotonic()
        # Through a file of Python's: torch's own writer does not say that the disk is full.
        with atomic_path(self._path) as temporary, writing(temporary), temporary.open("wb") as file:
            torch.save(state, file)
        for path in self.folder.glob("best-*.safetensors"):
            if path != self._best(best_epoch):
                remove_file(path)
        write_text(self.folder / "progress.json", json.dumps(progress) + "\n")
        self._saved = time.monotonic()
        self._cost = self._saved - started

    def load(self) -> dict[str, Any] | None:
        """Return the last committed state, on the CPU, or None where there is none.

        Raises StageError where it is damaged.
        """
        if not os.path.lexists(self._path):
            return None
        remove_temporaries(self.folder)
        try:
            check_regular(self._path)
            state: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
            json.loads(state["progress"])
        except Exception as error:  # damaged files break their readers in any way
            raise self.damaged(error) from error
        return state

    def damaged(self, error: Exception, path: Path | None = None) -> StageError:
        """Return the error for a file of the checkpoint, the state itself if None, that cannot be used."""
        reason = reason_of(error)
        if isinstance(error, UnpicklingError):  # whose own advice is to unpickle whatever it is
            reason = "it is damaged or holds more than tensors"
        return StageError(
            f"{path or self._path} cannot be read as part of a checkpoint ({reason}); put it back, or delete "
            f"{self.folder} to train from the beginning"
        )

    def _best(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch}.safetensors"
