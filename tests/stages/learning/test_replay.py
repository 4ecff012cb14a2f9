"""Replayed steps are the steps that they replay: gradients, random numbers and updates, to the last bit.

That the steps of every system can be recorded, also on a GPU, is tested in
tests/stages/systems/test_every_system.py.
"""

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hmnet_pipe.manifests.errors import StageError
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.learning import loop, replay
from hmnet_pipe.stages.learning.checkpoint import Checkpoints
from hmnet_pipe.stages.learning.loop import Task, Trainer
from hmnet_pipe.stages.learning.ranks import Ranks
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.learning.splits import Split
from hmnet_pipe.stages.systems.batch import ModelConfig
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.systems.system import System
from hmnet_pipe.stages.text.limits import EncodedText
from torch import Tensor

from ...taped import taped

LABELS = ("O", "B-PER", "I-PER")
LEVELS = (3, 5, 2, 4)


class Pictures:
    """Two views of every third sample, one of the next and none of the others, each with its own numbers."""

    def __contains__(self, key: object) -> bool:
        return True

    def gather(self, keys: Sequence[str | None]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        numbers = [int(key or 0) for key in keys]
        values = [np.random.default_rng(n).random((2, sum(LEVELS), 2, 2), np.float32) for n in numbers]
        return np.stack(values), np.array([[n % 3 < 2, n % 3 == 0] for n in numbers])


def texts() -> Split:
    """Return 16 texts of four lengths; of the longest, no sample has a view."""
    texts, gold = [], []
    for number in range(16):
        length = 3 + number // 4
        words = [5 + (7 * number + i) % 20 for i in range(length)]
        texts.append(EncodedText([2, *words, 3], list(range(1, 1 + length)), length))
        gold.append([LABELS[1 + (number + i) % 2] for i in range(length)])
    names, empty = [str(i) for i in range(16)], [list[str]()] * 16
    return Split("train", names, empty, gold, empty, [*names[:12], *["2"] * 4], texts)


@pytest.fixture
def model(tiny_encoder: Path) -> System:
    torch.manual_seed(3)
    return new_system(tiny_encoder, ModelConfig("hmnet", "ner", LABELS, LEVELS, "markers", 32, {}, None))


@pytest.fixture
def trained(
    model: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Trainer, float]]:
    """Return a function that trains copies of one model for four epochs, with a tape or without."""
    monkeypatch.setattr(loop, "recorder_on", lambda device: taped)

    def train(**settings: Any) -> tuple[Trainer, float]:
        torch.manual_seed(1)
        split = texts()
        chosen = TrainSettings(epochs=9, batch_size=2, precision="fp32", **settings)
        task = Task(
            "x", chosen, 1, {"train": split, "valid": split.take([])}, Pictures(), 0, chosen.rates, None
        )
        trainer = Trainer(task, copy.deepcopy(model), Checkpoints(tmp_path, every=math.inf), Ranks())
        for _ in range(4):
            trainer.train_epoch(SILENT.bar(0, "", ""), lambda *_: None)
            trainer.progress.batch = 0
        return trainer, trainer._losses.total

    return train


def assert_equal(one: Trainer, other: Trainer) -> None:
    states = one.model.state_dict(), other.model.state_dict()
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_training_is_the_same_with_replays(
    accumulate: int, trained: Callable[..., tuple[Trainer, float]]
) -> None:
    """Batches without a view leave the visual side without gradients, not with ones that are zero."""
    plain, its_losses = trained(accumulate=accumulate, cuda_graphs=False)
    replayed, losses = trained(accumulate=accumulate, cuda_graphs=True)
    assert plain._replays is None
    assert replayed._replays is not None
    assert replayed._replays.count == 5  # four lengths, and two texts of the third that have no view
    assert losses == its_losses
    assert_equal(plain, replayed)


def test_only_so_many_shapes_are_recorded(
    trained: Callable[..., tuple[Trainer, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = trained()
    monkeypatch.setattr(replay, "_MOST_GRAPHS", 2)
    replayed, _ = trained(cuda_graphs=True)
    assert replayed._replays.count == 2
    assert_equal(plain, replayed)


def test_a_model_that_cannot_be_recorded_says_so(
    trained: Callable[..., tuple[Trainer, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(loop, "recorder_on", lambda device: refuse)
    with pytest.raises(StageError, match=r"hmnet cannot .*is capturing\); train with --no-cuda-graphs"):
        trained(cuda_graphs=True)


def test_a_model_whose_steps_differ_is_not_recorded(
    trained: Callable[..., tuple[Trainer, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = trained()
    monkeypatch.setattr("hmnet_pipe.stages.systems.hmnet.HMNeT.path", lambda self, batch: None)
    replayed, _ = trained(cuda_graphs=True)
    assert replayed._replays.count == 0
    assert plain.progress.step == replayed.progress.step
    assert_equal(plain, replayed)


def test_a_processor_has_no_graphs() -> None:
    assert replay.recorder_on(torch.device("cpu")) is None
