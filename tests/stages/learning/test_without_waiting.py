"""A training step on a GPU never waits for it, and only uses operators that give the same bits each time.

It is shown without a GPU: on torch's device `meta`, whose tensors have shapes and no numbers. Whatever looks
into one of them raises, and on a GPU it would wait for all that is queued there.
"""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.learning.batches import batches
from hmnet_pipe.stages.learning.checkpoint import Checkpoints
from hmnet_pipe.stages.learning.loop import Task, Trainer
from hmnet_pipe.stages.learning.ranks import Ranks
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.learning.splits import Split
from hmnet_pipe.stages.systems.batch import ModelConfig
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.systems.end_to_end import EndToEnd
from hmnet_pipe.stages.systems.registry import SYSTEMS
from hmnet_pipe.stages.systems.system import Model
from hmnet_pipe.stages.text.limits import EncodedText
from hmnet_pipe.stages.vision.backbones.build import build_backbone
from hmnet_pipe.stages.vision.demo import DEMO_LEVELS
from hmnet_pipe.stages.vision.views import normalise
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

LABELS = {"ner": ("O", "B-PER", "I-PER"), "re": ("None", "/per/loc", "/per/org")}
SIDE = 32
META = torch.device("meta")

# What the documentation of torch.use_deterministic_algorithms lists as impossible on a GPU, as operators.
_IN_ANY_ORDER = re.compile(
    r"_?adaptive_(avg|max)_pool\dd_backward|max_pool3d_with_indices_backward|avg_pool3d_backward|max_unpool.*|"
    r"fractional_max_pool.*_backward|upsample_.*_backward|grid_sampler_.*_backward|reflection_pad.*_backward|"
    r"replication_pad.*_backward|nll_loss2d_backward|_ctc_loss_backward|_embedding_bag_.*backward|put_?|"
    r"histc|bincount|kthvalue|median|cumsum|cumprod|scatter_reduce.*|index_reduce.*|resize_"
)


class Watched(TorchDispatchMode):
    """Notes what a step on a GPU would wait for, or would add up in any order, besides what raises."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function.__name__.split(".")[0]
        whole = name in ("cumsum", "cumprod") and not args[0].is_floating_point()
        if _IN_ANY_ORDER.fullmatch(name) and not whole:
            self.found.append(str(function))
        waits = kwargs.get("device") == META and not kwargs.get("non_blocking")
        if name == "_to_copy" and args[0].device != META and waits:
            self.found.append("a copy to the device that is waited for")
        return function(*args, **kwargs)


class Sent(TorchFunctionMode):
    """Notes the numbers that a step sends to the device by torch.tensor, which waits for it."""

    def __init__(self, found: list[str]) -> None:
        self.found = found

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.tensor, torch.as_tensor) and (kwargs or {}).get("device") == META:
            self.found.append(f"{function.__name__} on the device")
        return function(*args, **(kwargs or {}))


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
    split = Split("train", [str(i) for i in range(6)], [], [], [], [None] * 6)
    gold = LABELS[model.config.task]
    for ids in words:
        count = len(ids) - 2
        positions = list(range(1, 1 + count)) if model.config.task == "ner" else [0, 1, 2]
        split.texts.append(EncodedText(ids, positions, count))
        split.gold.append([gold[1 + i % 2] for i in range(count)])
    rates = dict.fromkeys(("encoder", "head", "fusion", "backbone"), 1e-3)
    settings = TrainSettings(epochs=1, first_evaluation=1, batch_size=2, accumulate=1, precision="fp32")
    task = Task("x", settings, 1, {"train": split, "valid": split.take([])}, visuals, 0, rates, None)
    return Trainer(task, model.to(META), Checkpoints(folder, every=math.inf), Ranks())


def check(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train an epoch on META, all but the losses' values, which are read once at its end."""
    reads: list[int] = []
    monkeypatch.setattr("hmnet_pipe.stages.learning.loop._LossSum.read", lambda self: reads.append(1))
    with Watched() as watched, Sent(watched.found):
        assert trainer.train_epoch(SILENT.bar(0, "", ""), lambda *_: None) == 6
    assert trainer.progress.step == 3
    assert len(reads) == 1
    assert not watched.found


@pytest.mark.parametrize(("name", "task"), [(name, task) for name in SYSTEMS for task in SYSTEMS[name].tasks])
def test_a_step_of_every_system_waits_for_nothing(
    name: str, task: str, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = (3, 5, 2, 4) if SYSTEMS[name].is_visual else ()
    config = ModelConfig(name, task, LABELS[task], levels, "markers", 32, {}, None)
    images = Images(np.zeros((2, sum(levels), 2, 2), np.float16)) if levels else None
    check(trainer_of(new_system(tiny_encoder, config), images, tmp_path), monkeypatch)


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
    check(trainer_of(model, images, tmp_path), monkeypatch)


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
