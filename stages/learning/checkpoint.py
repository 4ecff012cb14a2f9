"""What a killed training resumes from: the last committed checkpoint, and the best model so far beside it."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...manifests.files import atomic_path, remove_temporaries, write_text

__all__ = ["Checkpoints"]


class Checkpoints:
    """The folder of one training's checkpoint. A new state replaces the old one only when it is whole and on disk.

    checkpoint.pt: the state. best-<epoch>.safetensors: the model of the best epoch, which would otherwise cost as much memory as the
    model itself. progress.json: how far the training is, for people and for `status`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def _path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def keep_best(self, epoch: int, state: dict[str, Tensor]) -> None:
        """Write the model of `epoch`; the one before it stays until the next `save`, whose state may still mean it."""
        with atomic_path(self._best(epoch)) as temporary:
            save_file({name: value.detach().contiguous() for name, value in state.items()}, temporary)

    def best(self, epoch: int) -> dict[str, Tensor]:
        return load_file(self._best(epoch))

    def save(self, state: dict[str, Any], best_epoch: int, progress: dict[str, int]) -> None:
        """Commit `state`, of tensors and plain values, and drop the best models that it no longer means."""
        with atomic_path(self._path) as temporary:
            torch.save(state, temporary)
        for path in self.folder.glob("best-*.safetensors"):
            if path != self._best(best_epoch):
                path.unlink()
        write_text(self.folder / "progress.json", json.dumps(progress) + "\n")

    def load(self) -> dict[str, Any] | None:
        """The last committed state, on the CPU, or None where there is none."""
        if not self._path.is_file():
            return None
        remove_temporaries(self.folder)
        state: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        return state

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _best(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch}.safetensors"
