"""What kind of machine a stage ran on: what can change the last bits of its numbers, and nothing that tells two such machines apart."""

import platform
from pathlib import Path

__all__ = ["machine_kind"]


def machine_kind() -> dict[str, str | bool | int]:
    """The processor's model, whether it multiplies bf16 (what `precision = auto` goes by), the threads that torch uses in this process
    (sums are added up in another order with another number), the GPU, if any, and the operating system."""
    import torch

    from ...stages.base.arithmetic import resolve_device, resolve_precision

    device = resolve_device("auto")
    return {
        "processor": _processor(),
        "bf16": resolve_precision("auto", torch.device("cpu")) == "bf16",
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name()
        if device.type == "cuda"
        else device.type
        if device.type != "cpu"
        else "none",
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    """Linux names the model in /proc/cpuinfo; elsewhere platform knows as much as there is to know without asking another program."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        fields = dict(
            part for line in lines if len(part := [side.strip() for side in line.split(":", 1)]) == 2
        )
    except OSError:
        fields = {}
    if "model name" not in fields:
        return platform.processor() or platform.machine() or "unknown"
    # The name alone is often generic ("Intel(R) Xeon(R) Processor"); family, model and stepping say which one it is.
    return f"{fields['model name']}, family {fields.get('cpu family')}, model {fields.get('model')}, stepping {fields.get('stepping')}"
