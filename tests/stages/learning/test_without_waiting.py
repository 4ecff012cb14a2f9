"""A training step on a GPU never waits for it, and only uses operators that give the same bits each time.

The same of every system is tested in tests/stages/systems/test_every_system.py.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hmnet_pipe.stages.learning.batches import batches
from hmnet_pipe.stages.learning.checkpoint import Checkpoints
from hmnet_pipe.stages.learning.loop import Task, Trainer
from hmnet_pipe.stages.learning.optimizer import make_optimizer
from hmnet_pipe.stages.learning.ranks import Ranks
from hmnet_pipe.stages.learning.recipe import OPTIMIZERS, TrainSettings
from hmnet_pipe.stages.learning.splits import Split
from hmnet_pipe.stages.systems.batch import ModelConfig
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.systems.end_to_end import EndToEnd
from hmnet_pipe.stages.systems.system import Model
from hmnet_pipe.stages.text.limits import EncodedText
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from hmnet_pipe.stages.vision.demo import DEMO_LEVELS
from hmnet_pipe.stages.vision.views import normalise
from torch import Tensor

from ...meta import META, check_step

LABELS = {"ner": ("O", "B-PER", "I-PER"), "re": ("None", "/per/loc", "/per/org")}
SIDE = 32


class Images:
    """Visuals of two views: of every sample, of some, and of none, batch by batch."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self._values = values
        self._masks: Iterator[list[bool]] = iter([[True, True], [True, False], [False, False]])

    def __contains__(self, key: object) -> bool:
        return True

    def gather(self, keys: Sequence[str | None]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        return np.stack([self._values] * len(keys)), np.array([next(self._masks)] * len(keys))


def trainer_of(model: Model, visuals: Images | None, folder: Path) -> Trainer:
    """Return a training of three batches of different lengths on the device META."""
    words = [[2, *range(5, 5 + length), 3] for length in (3, 4, 9, 9, 1, 6)]
    texts, golden = [], []
    gold = LABELS[model.config.task]
    for ids in words:
        count = len(ids) - 2
        positions = list(range(1, 1 + count)) if model.config.task == "ner" else [0, 1, 2]
        texts.append(EncodedText(ids, positions, count))
        golden.append([gold[1 + i % 2] for i in range(count)])
    empty: list[list[str]] = [[]] * 6
    split = Split("train", [str(i) for i in range(6)], empty, golden, empty, [None] * 6, texts)
    rates = dict.fromkeys(("encoder", "head", "fusion", "backbone"), 1e-3)
    settings = TrainSettings(epochs=1, first_evaluation=1, batch_size=2, accumulate=1, precision="fp32")
    task = Task("x", settings, 1, {"train": split, "valid": split.take([])}, visuals, 0, rates, None)
    return Trainer(task, model.to(META), Checkpoints(folder, every=math.inf), Ranks())


@pytest.mark.parametrize("task", ["ner", "re"])
@pytest.mark.parametrize("name", ["hmnet", "hmnet-onlyobj"])
def test_a_step_waits_for_nothing_whatever_views_there_are(
    name: str, task: str, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = (3, 5, 2, 4)
    config = ModelConfig(name, task, LABELS[task], levels, "markers", 32, {}, None)
    images = Images(np.zeros((2, sum(levels), 2, 2), np.float16))
    check_step(trainer_of(new_system(tiny_encoder, config), images, tmp_path), monkeypatch)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_nor_does_one_from_pixels(
    batch_norm: bool, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig("hmnet", "ner", LABELS["ner"], DEMO_LEVELS, "markers", 32, {}, None)
    backbone = build_backbone("demo_resnet", "random")
    model = EndToEnd(
        new_system(tiny_encoder, config), backbone, 2, unfreeze=5, batch_norm=batch_norm, augment=True
    )
    images = Images(np.zeros((2, SIDE, SIDE, 3), np.uint8))
    # Sends mean and deviation to the device, once a process.
    normalise(torch.zeros(1, SIDE, SIDE, 3, device=META), backbone.info.mean, backbone.info.std)
    check_step(trainer_of(model, images, tmp_path), monkeypatch)


def test_texts_for_a_gpu_are_whole_tiles_and_those_for_a_processor_as_short_as_can_be(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    config = ModelConfig("bert-crf", "ner", LABELS["ner"], (), "markers", 32, {}, None)
    split = trainer_of(new_system(tiny_encoder, config), None, tmp_path).task.splits["train"]
    for_gpu, for_cpu = (
        list(
            batches(
                split, [[0, 1], [2, 3]], task="ner", pad_id=0, label_ids=None, visuals=None, device=device
            )
        )
        for device in (META, torch.device("cpu"))
    )
    assert [batch.input_ids.shape[1] for batch in for_gpu] == [8, 16]
    assert [batch.input_ids.shape[1] for batch in for_cpu] == [6, 11]
    for one, other in zip(for_gpu, for_cpu, strict=True):
        length = other.input_ids.shape[1]
        assert torch.equal(one.input_ids[:, :length], other.input_ids)
        assert torch.equal(one.attention_mask[:, :length], other.attention_mask)
        assert not one.input_ids[:, length:].any()
        assert not one.attention_mask[:, length:].any()
        assert torch.equal(one.positions, other.positions)


def test_batches_for_a_gpu_are_pinned_whole(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU reads pinned memory by itself; of any other it is waited for until it has it."""
    pinned: list[int] = []

    def pin(tensor: Tensor) -> Tensor:
        pinned.append(id(copied := tensor.clone()))
        return copied

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    levels = (3, 5, 2, 4)
    config = ModelConfig("hmnet", "ner", LABELS["ner"], levels, "markers", 32, {}, None)
    images = Images(np.zeros((2, sum(levels), 2, 2), np.float16))
    split = trainer_of(new_system(tiny_encoder, config), images, tmp_path).task.splits["train"]
    labels = {label: number for number, label in enumerate(LABELS["ner"])}
    made = batches(
        split,
        [[0, 1]],
        task="ner",
        pad_id=0,
        label_ids=labels,
        visuals=images,
        device=torch.device("cuda"),
    )
    tensors = [value for value in vars(next(iter(made))).values() if isinstance(value, Tensor)]
    assert len(tensors) == 7
    assert pinned == [id(tensor) for tensor in tensors]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_is_a_few_kernels_for_all_parameters(name: str) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(2))]
    group = {"name": "head", "params": parameters, "lr": 1.0, "weight_decay": 0.0}
    optimizer = make_optimizer([group], TrainSettings(optimizer=name))
    assert optimizer.param_groups[0]["fused"] is True
