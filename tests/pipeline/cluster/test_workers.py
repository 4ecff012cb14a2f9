"""How many workers the embedded cluster starts."""

import os
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Self

import distributed
import psutil
import pytest
import torch
from hmnet_pipe.pipeline.cluster.dask import Cluster, default_workers
from hmnet_pipe.stages.base.arithmetic import Arithmetic
from hmnet_pipe.stages.detect.unit import ChunkUnit
from hmnet_pipe.stages.extract.unit import ShardUnit


@dataclass(frozen=True)
class Unit:
    device: str

    def __len__(self) -> int:
        return 1

    def halves(self) -> tuple[Self, Self]:
        raise AssertionError


@pytest.mark.parametrize(("gigabytes", "workers"), [(80, 16), (24, 8), (8, 2), (2, 1)])
def test_the_workers_of_a_gpu_fit_its_memory(
    gigabytes: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * 2**30))
    asked: list[Any] = []

    def properties(device: str) -> Any:
        asked.append(device)
        return SimpleNamespace(total_memory=gigabytes * 2**30)

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    assert default_workers() == 16
    assert not asked

    class Started(Exception):
        pass

    def start(*, n_workers: int, **_: Any) -> None:
        raise Started(n_workers)

    monkeypatch.setattr(distributed, "LocalCluster", start)
    for device, expected in (("cuda:1", workers), ("cpu", 16)):
        with pytest.raises(Started, match=f"^{expected}$"), Cluster(None, None, print) as cluster:
            next(cluster.map(len, [Unit(device)] * 100))
    assert asked == ["cuda:1"]


def test_units_say_where_they_compute() -> None:
    arithmetic = Arithmetic("cuda:1", "bf16", "torch")
    assert ShardUnit((), arithmetic, ()).device == "cuda:1"
    assert ChunkUnit("work", None, "detector", "weights", 3, 0.3, arithmetic, ()).device == "cuda:1"
