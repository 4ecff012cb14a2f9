"""The processes that train one model together, started by torchrun, each with its share of every batch.

    torchrun --nproc-per-node 2 --no-python hmnet-pipe train runs/x

Without torchrun there is one process, rank 0 of 1, and nothing here has any effect.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["Ranks", "current_ranks", "joined_ranks"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """This process's place among `size` ranks. Rank 0 leads: it alone writes and prints.

    All ranks call the methods together.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def settings(self) -> dict[str, int]:
        """Return the settings of [train] that torchrun determines; none without it."""
        return {"processes": self.size} if self.size > 1 else {}

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Return this rank's part of `items`: every `size`-th."""
        return list(items[self.rank :: self.size])

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in the order of ranks, on every rank."""
        if self.size == 1:
            return [value]
        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value)
        return box

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return `module` with gradients averaged over the ranks.

        A batch may leave some parameters without a gradient: there may be no image in it.
        """
        if self.size == 1:
            return module
        return DistributedDataParallel(module, find_unused_parameters=True)


def current_ranks() -> Ranks:
    """Return the ranks that `joined_ranks` joined, or one rank alone."""
    return Ranks(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Ranks()


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun started (see its environment), each with a GPU if there are any."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        with warnings.catch_warnings():
            # That a batch uses all parameters is no mistake: another, without an image, may not (see
            # `Ranks.wrap`).
            warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
            yield current_ranks()
    finally:
        dist.destroy_process_group()
