"""Which device and which arithmetic a stage uses: chosen once, said, and recorded in its fingerprint."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...manifests.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["DEVICES", "PRECISIONS", "Arithmetic", "autocast", "resolve_device", "resolve_precision"]

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Arithmetic:
    """How a network that only infers computes, in words that travel to a worker.

    device: a torch device. precision: "fp32" or "bf16". kernels: "onednn" where convolutions run as stages.vision.fused has them, on x86
    processors, else "torch". Precision and kernels decide the last bits; they belong into fingerprints.
    """

    device: str
    precision: str
    kernels: str

    @classmethod
    def of(cls, device: str, precision: str) -> Arithmetic:
        """What the settings `device` and `precision` mean. A device that is named is asked for nothing that the settings tell, so that a
        machine without a GPU can send work to machines that have one: `--device cuda --precision bf16`."""
        known = resolve_device(device) if device == "auto" or precision == "auto" else _device(device)
        chosen = resolve_precision(precision, known)
        return cls(str(known), chosen, "onednn" if known.type == "cpu" and _has_onednn(chosen) else "torch")

    @property
    def identity(self) -> dict[str, str]:
        """What of it decides the numbers."""
        return {"precision": self.precision, "kernels": self.kernels}

    def check(self) -> torch.device:
        """The device, once it is known that this process can compute so. Raises InputError where it cannot."""
        if self.kernels == "onednn" and not _has_onednn(self.precision):
            raise InputError(
                f"the worker on {platform.node()} ({platform.machine()}) has no oneDNN kernels for {self.precision}, as the "
                "machine has that gave it work; start workers and command on one kind of machine"
            )
        return resolve_device(self.device)


def _has_onednn(precision: str) -> bool:
    import torch

    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not there or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return precision == "fp32" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _device(name: str) -> torch.device:
    import torch

    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError(
            f"--device {name} cannot be used here ({str(error).splitlines()[0]}); use --device cpu or auto"
        ) from error


def resolve_device(name: str) -> torch.device:
    """The torch device that `name` (a member of DEVICES, or `cuda:1`) stands for. Raises InputError where it is not there."""
    import torch

    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    device = _device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--device {name} cannot be used here ({reason}); use --device cpu or auto"
        ) from error
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """ "fp32" or "bf16": what `name` (a member of PRECISIONS) means on `device`.

    "auto" is bf16 where the hardware multiplies it (GPUs that do, processors with AVX512-BF16 or AMX) and fp32 elsewhere, where
    emulation would be slower as well as coarser.
    """
    import torch

    if name not in PRECISIONS:
        raise InputError(f"precision {name!r} is not one of {', '.join(PRECISIONS)}")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return (
            "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"
        )
    return "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context in which a network computes at `precision`."""
    import torch

    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
