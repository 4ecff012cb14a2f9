"""A recorder of operations on the processor, in the place of CUDA graphs.

As a graph does, a tape repeats the operators of a function on the same tensors, whatever Python would now do.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["taped"]


class _Tape(TorchDispatchMode):
    """Notes every operator that runs, with what it was given and what it returned."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self._calls.append((function, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, result in self._calls:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                # Views and what is changed in place are there already.
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def taped(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Return what replays `work`, and its result's place, with the random generator as it was."""
    state = torch.get_rng_state()
    with _Tape() as tape:
        result = work()
    result.fill_(torch.nan)  # recording computes nothing
    torch.set_rng_state(state)
    return tape.replay, result
