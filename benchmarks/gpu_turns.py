"""Contenders on a GPU that take turns, their rates, and how busy the GPU is meanwhile."""

import contextlib
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["QUICK", "Measured", "Sizes", "halved", "take_turns"]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    images: int = 512
    detected: int = 128
    samples: int = 1024
    batch: int = 16
    rounds: int = 3
    workers: tuple[int, ...] = (1, 4, 8)
    encoder: dict[str, Any] = field(default_factory=dict)
    compiled: bool = False


QUICK = Sizes(
    images=4,
    detected=2,
    samples=8,
    batch=4,
    rounds=1,
    workers=(1,),
    encoder={"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
)


class Meter:
    """Reads how busy the GPU is and how much of its memory is taken, while something else is measured."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stop = device, threading.Event()
        self._busy: list[int] = []
        self._taken: list[int] = []

    def __enter__(self) -> "Meter":
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        while self._device.type == "cuda" and not self._stop.wait(0.05):
            free, whole = torch.cuda.mem_get_info(self._device)
            self._taken.append(whole - free)
            # Needs the package nvidia-ml-py.
            with contextlib.suppress(Exception):
                self._busy.append(torch.cuda.utilization(self._device))

    @property
    def facts(self) -> dict[str, float | None]:
        return {
            "GPU busy, %": statistics.mean(self._busy) if self._busy else None,
            "peak memory, GiB": max(self._taken) / 2**30 if self._taken else None,
        }


@dataclass
class Measured:
    """The rates of one contender, a second, and what the GPU did meanwhile."""

    unit: str
    rates: list[float] = field(default_factory=list)
    facts: dict[str, float | None] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


def take_turns(
    what: str, unit: str, contenders: dict[str, Callable[[], int]], rounds: int, device: torch.device
) -> dict[str, Measured]:
    """Let contenders work in turns: each call returns how much it did. The first round warms up."""
    found = {name: Measured(unit) for name in contenders}
    for round_ in range(rounds + 1):
        for name, run in contenders.items():
            with Meter(device) as meter:
                started = time.perf_counter()
                done = run()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds = time.perf_counter() - started
            if round_:
                found[name].rates.append(done / seconds)
                found[name].facts = meter.facts
            print(
                f"{what}, round {round_}, {name}: {done / seconds:.1f} {unit}/s", file=sys.stderr, flush=True
            )
    return found


def halved(device: torch.device) -> Any:
    return torch.autocast(device.type, torch.bfloat16)
