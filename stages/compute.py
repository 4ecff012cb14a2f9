"""Which device and which arithmetic a stage uses: chosen once, said, and recorded in its fingerprint."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from ..manifests.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["DEVICES", "PRECISIONS", "autocast", "resolve_device", "resolve_precision"]

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")


def resolve_device(name: str) -> torch.device:
    """The torch device that `name` (a member of DEVICES, or `cuda:1`) stands for. Raises InputError where it is not there."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}); use --device cpu or auto") from error
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
        return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"
    return "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context in which a network computes at `precision`."""
    import torch

    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
