"""Which device and which arithmetic a stage uses: chosen once, printed, and recorded in its fingerprint."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...manifests.errors import InputError
from ...manifests.record import StageRecord
from . import onednn

if TYPE_CHECKING:
    import torch

__all__ = [
    "DEVICES",
    "PRECISIONS",
    "Arithmetic",
    "autocast",
    "exactly",
    "processor_name",
    "resolve_device",
    "resolve_precision",
    "resolve_recorded",
    "system_name",
]

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")

# Where one of these exists, a process may find a GPU that an earlier one did not.
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")


@dataclass(frozen=True)
class Arithmetic:
    """How a network that only infers computes, as plain strings that can be sent to a worker.

    device: a torch device. precision: "fp32" or "bf16". kernels: "onednn" where convolutions run as
    stages.vision.fused runs them, on x86 processors whose torch passes the probe of stages.base.onednn;
    otherwise "torch". Precision and kernels decide the last bits, so both belong in fingerprints.
    """

    device: str
    precision: str
    kernels: str

    @classmethod
    def of(cls, device: str, precision: str) -> Arithmetic:
        """Return what the settings `device` and `precision` stand for.

        Probes the hardware only where a setting is "auto", so that a machine without a GPU can submit
        `--device cuda --precision bf16` work to machines that have one.
        """
        known = resolve_device(device) if device == "auto" or precision == "auto" else _device(device)
        chosen = resolve_precision(precision, known)
        fused = known.type == "cpu" and onednn.fault(chosen) is None
        return cls(str(known), chosen, "onednn" if fused else "torch")

    @classmethod
    def recorded(cls, device: str, precision: str, record: StageRecord | None) -> Arithmetic:
        """Return what `of` returns, from `record` where it was made with the same settings on this machine.

        This avoids torch, which `of` asks and which takes seconds to import.
        """
        if record is not None and _holds_here(record, device, precision):
            names = record.parameters
            return cls("cpu", str(names["precision"]), str(names["kernels"]))
        return cls.of(device, precision)

    def plain(self, precision: str) -> Arithmetic:
        """Return it for a network that only torch's own kernels compute, in fp32 where nothing else is asked.

        precision: the setting.
        """
        return replace(self, kernels="torch", precision="fp32" if precision == "auto" else self.precision)

    @property
    def identity(self) -> dict[str, str]:
        """Return the part of it that decides the numbers."""
        return {"precision": self.precision, "kernels": self.kernels}

    @property
    def remark(self) -> str | None:
        """Return a note for the user where oneDNN's kernels would suit this processor but cannot be used."""
        if self.kernels != "torch" or not self.device.startswith("cpu") or not onednn.suits_processor():
            return None
        return (
            f"note: convolutions run on torch's own kernels, which are slower: {onednn.fault(self.precision)}"
        )

    def check(self) -> torch.device:
        """Return the device, after checking that this process can compute this way.

        Raises InputError where it cannot.
        """
        if self.kernels == "onednn" and (reason := onednn.fault(self.precision)) is not None:
            raise InputError(
                f"the worker on {platform.node()} ({platform.machine()}) cannot compute in {self.precision} "
                f"with oneDNN, as the machine can that gave it work: {reason}; "
                "start workers and command on one kind of machine"
            )
        return resolve_device(self.device)


def _holds_here(record: StageRecord, device: str, precision: str) -> bool:
    """Return whether torch would resolve device and precision here and now to what `record` holds.

    Only for processors: torch alone knows which GPU a process has.
    """
    given, machine = record.facts.get("settings", {}), record.facts.get("machine", {})
    return (
        device in ("auto", "cpu")
        and (given.get("device"), given.get("precision")) == (device, precision)
        and machine.get("gpu") == "none"
        and machine.get("processor") == processor_name()
        and machine.get("system") == system_name()
        and record.facts.get("versions", {}).get("torch") == version("torch")
        and not any(Path(driver).exists() for driver in _GPU_DRIVERS)
    )


def processor_name() -> str:
    """Return the processor's model.

    Linux names it in /proc/cpuinfo; elsewhere `platform` knows all there is to know without running another
    program.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        fields = dict(
            part for line in lines if len(part := [side.strip() for side in line.split(":", 1)]) == 2
        )
    except OSError:
        fields = {}
    if "model name" not in fields:
        return platform.processor() or platform.machine() or "unknown"
    # The name is often generic ("Intel(R) Xeon(R) Processor"); family, model and stepping say which one it
    # is.
    numbers = ", ".join(
        f"{name} {fields.get(key)}"
        for name, key in (("family", "cpu family"), ("model", "model"), ("stepping", "stepping"))
    )
    return f"{fields['model name']}, {numbers}"


def system_name() -> str:
    """Return the operating system and the kind of processor."""
    return f"{platform.system()} {platform.machine()}"


def _device(name: str) -> torch.device:
    import torch

    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError(
            f"--device {name} cannot be used here ({str(error).splitlines()[0]}); use --device cpu or auto"
        ) from error


def resolve_device(name: str) -> torch.device:
    """Return the torch device that `name` (a member of DEVICES, or `cuda:1`) stands for.

    Raises InputError where there is no such device.
    """
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


def resolve_recorded(device: str, precision: str, record: StageRecord | None) -> tuple[str, str]:
    """Return the type of the device and the precision that these settings stand for.

    They come from a training's record where it was made with the same settings on this machine, and from
    torch otherwise.
    """
    if record is not None and _holds_here(record, device, precision):
        return str(record.parameters["device"]), str(record.parameters["precision"])
    known = resolve_device(device)
    return known.type, resolve_precision(precision, known)


def resolve_precision(name: str, device: torch.device) -> str:
    """Return "fp32" or "bf16": what `name` (a member of PRECISIONS) stands for on `device`.

    "auto" is bf16 where the hardware multiplies it (GPUs that do, processors with AVX512-BF16 or AMX) and
    fp32 elsewhere, where emulation would be slower as well as coarser.
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


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Return the context in which a network computes at `precision`, forward; see `exactly`."""
    import torch

    coarse = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    with exactly(device), coarse:
        yield


@contextmanager
def exactly(device: torch.device, *, gradients: bool = False) -> Iterator[None]:
    """Return the context in which a GPU gives the same bits each time, and in which fp32 is fp32.

    By default CUDA adds up in any order where that is faster, and rounds the factors of fp32 convolutions
    to 10 bits (TF32). gradients: also those that a backward pass adds up; an operator that can only do so in
    any order raises RuntimeError. Networks that only infer go without it: torchvision would then compute
    RoIAlign by slow code of its own.
    """
    if device.type != "cuda":
        yield
        return
    import torch

    # Read when cuBLAS is first used; with other workspaces its sums depend on what else runs.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn: Any = torch.backends.cudnn
    memory: Any = torch.utils.deterministic
    before = cudnn.deterministic, cudnn.allow_tf32, memory.fill_uninitialized_memory
    always, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn.deterministic, cudnn.allow_tf32, memory.fill_uninitialized_memory = True, False, False
    if gradients:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        if gradients:
            torch.use_deterministic_algorithms(always, warn_only=warns)
        cudnn.deterministic, cudnn.allow_tf32, memory.fill_uninitialized_memory = before
