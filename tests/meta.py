"""A training step on torch's device `meta`, whose tensors have shapes and no numbers, in the place of a GPU.

Whatever looks into one of them raises, and on a GPU it would wait for all that is queued there.
"""

import re
from typing import Any

import pytest
import torch
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.learning.loop import Trainer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

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


def check_step(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train an epoch of three batches on META, all but the losses' values, which are read once at its end."""
    reads: list[int] = []
    monkeypatch.setattr("hmnet_pipe.stages.learning.loop._LossSum.read", lambda self: reads.append(1))
    with Watched() as watched, Sent(watched.found):
        assert trainer.train_epoch(SILENT.bar(0, "", ""), lambda *_: None) > 0
    assert trainer.progress.step == 3
    assert len(reads) == 1
    assert not watched.found
